// The matrix: its rows lead to Dockerfiles, and are filtered and sorted.

const body = document.getElementById('rows');
const matrixRows = body ? [...body.rows] : [];

/** What a row is found by: made when it is first searched for. */
const haystacks = new Map();
function haystack(at) {
  let found = haystacks.get(at);
  if (found !== undefined) return found;
  const row = page.rows[at];
  const parts = [row.name, row.status];
  page.columns.forEach((cap, column) => {
    if ('N?'.includes(row.cells[column])) parts.push(capName(cap));
  });
  if (row.detail) {
    const texts = new Set();
    for (const step of row.detail.steps) texts.add(step.text).add(step.state);
    for (const capability of row.detail.caps) {
      for (const item of capability.evidence) texts.add(item[4]).add(item[6]);
    }
    for (const place of texts) parts.push(text(place));
  }
  found = parts.join('\n').toLowerCase();
  haystacks.set(at, found);
  return found;
}

function filterRows(query) {
  const words = query.toLowerCase().split(/\s+/).filter((word) => word !== '');
  let shown = 0;
  matrixRows.forEach((tr, at) => {
    const hit = words.every((word) => haystack(at).includes(word));
    if (tr.hidden === hit) tr.hidden = !hit;
    if (hit) shown += 1;
  });
  const count = document.getElementById('count');
  count.textContent = words.length === 0 ? plural(matrixRows.length, 'Dockerfile') : `${shown} of ${plural(matrixRows.length, 'Dockerfile')}`;
  if (words.length > 0) say(count.textContent);
}

const WEIGHTS = { N: 3, '?': 2, '.': 1, ' ': 0 };

/** What rows are ordered by, for a column: 0 the name, the last the build. */
function sortKey(column) {
  if (column === 0) return (at) => page.rows[at].name;
  if (column > page.columns.length) return (at) => (page.rows[at].good ? 'b' : 'a') + page.rows[at].status;
  return (at) => -WEIGHTS[page.rows[at].cells[column - 1]];
}

let sorted = { column: 0, down: false };
function sortRows(column) {
  sorted = { column, down: sorted.column === column ? !sorted.down : false };
  const key = sortKey(column);
  const order = matrixRows.map((tr, at) => ({ tr, at, key: key(at) }));
  const sign = sorted.down ? -1 : 1;
  order.sort((a, b) => (a.key < b.key ? -sign : a.key > b.key ? sign : a.at - b.at));
  body.append(...order.map(({ tr }) => tr));
  document.querySelectorAll('#matrix thead th').forEach((head, at) => {
    if (at === column) head.setAttribute('aria-sort', sorted.down ? 'descending' : 'ascending');
    else head.removeAttribute('aria-sort');
  });
}

function setUpMatrix() {
  if (!body) return;
  matrixRows.forEach((tr, at) => {
    const name = page.rows[at].name;
    tr.cells[0].replaceChildren(el('a', { href: fragment({ d: name }) }, bdi(name)));
  });
  const places = new Map(matrixRows.map((tr, at) => [tr, at]));
  body.addEventListener('click', (event) => {
    const cell = event.target.closest('td');
    if (!cell || getSelection().toString() !== '') return;
    const at = places.get(cell.parentElement);
    const cap = page.columns[cell.cellIndex - 1];
    const asked = cap !== undefined && page.rows[at].cells[cell.cellIndex - 1] !== ' ';
    location.hash = fragment({ d: page.rows[at].name, cap: asked ? capName(cap) : null });
  });
  document.querySelectorAll('#matrix thead th').forEach((head, column) => {
    const button = el('button', { type: 'button', click: () => sortRows(column) }, ...head.childNodes);
    head.replaceChildren(button);
  });
  document.getElementById('filters').append(
    el(
      'label',
      { class: 'filter' },
      'Filter ',
      el('input', {
        type: 'search',
        id: 'filter',
        placeholder: 'Dockerfile, capability, program, system call, text of a line',
        spellcheck: 'false',
        autocomplete: 'off',
        input: (event) => {
          filterRows(event.target.value);
          replaceState({ q: event.target.value });
        },
      }),
    ),
    el('span', { id: 'count', class: 'muted' }),
    page.rows.length > 1 ? el('a', { class: 'button', href: fragment({ a: page.rows[0].name, b: page.rows[1].name }) }, 'Compare two') : '',
  );
  filterRows('');
  for (const name of document.querySelectorAll('[data-d]')) {
    if (!page.rows.some((row) => row.name === name.dataset.d)) continue;
    name.replaceWith(el('a', { href: fragment({ d: name.dataset.d, cap: name.dataset.c ?? null }) }, bdi(name.textContent)));
  }
}
