// What the fragment asks for: d a Dockerfile, cap a capability, line a line; a and b two to compare;
// q a filter.

const main = document.getElementById('main');
const overview = document.getElementById('overview');
const view = el('div', { id: 'view' });

function state() {
  const given = new URLSearchParams(location.hash.slice(1));
  const line = given.get('line');
  return {
    d: given.get('d'),
    cap: given.get('cap'),
    line: line !== null && /^\d{1,9}$/.test(line) ? line : null,
    a: given.get('a'),
    b: given.get('b'),
    q: given.get('q') ?? '',
  };
}

/** Changes the fragment without going anywhere. */
function replaceState(next) {
  try {
    history.replaceState(null, '', fragment(next) === '#' ? location.pathname : fragment(next));
  } catch {
    // A browser may refuse it for files, or when it is done often.
  }
}

const rowNamed = (name) => page.rows.find((row) => row.name === name);

/** Moves the focus, and the page only where that cannot be seen. */
function focusOn(element) {
  if (!element) return;
  const { top } = element.getBoundingClientRect();
  element.focus({ preventScroll: top >= 0 && top < innerHeight * 0.7 });
}

const back = () => el('nav', { class: 'back', 'aria-label': 'Back' }, el('a', { href: '#' }, `← All ${plural(page.rows.length, 'Dockerfile')}`));

function split(row, selected) {
  return el('div', { class: 'split', id: 'split' }, sourceView(row, row.detail, selected), whyView(row, row.detail, selected));
}

function buildView(row, selected) {
  const detail = row.detail;
  const answer = detail?.answer;
  return el(
    'article',
    { class: 'build', id: 'build' },
    answer
      ? answerTop(row, answer)
      : [
          el('h1', { tabindex: '-1' }, bdi(row.name)),
          el('p', { class: 'status' }, row.status),
          row.left ? warning({ tone: 'unsure', label: 'Note', text: row.left }) : null,
          el(
            'p',
            {},
            page.columns.map((cap, column) => ('N?'.includes(row.cells[column]) ? [chip(cap, row.cells[column], { d: row.name }), ' '] : null)),
          ),
        ],
    detail ? split(row, selected) : null,
    answer ? answerFacts(answer.facts) : null,
    detail ? trialsView(detail) : null,
  );
}

/** What is shown, so that only what changes is made anew. */
let shown = { d: undefined, pair: undefined };

function showOne(selected) {
  const row = page.rows[0];
  if (!row.detail) return;
  document.getElementById('split').replaceWith(split(row, selected));
}

function route(event) {
  const selected = state();
  const moved = event !== undefined;
  if (page.one) {
    showOne(selected);
  } else {
    const pair = selected.a !== null && selected.b !== null ? [rowNamed(selected.a), rowNamed(selected.b)] : null;
    const row = selected.d === null ? undefined : rowNamed(selected.d);
    const comparing = pair !== null && pair[0] !== undefined && pair[1] !== undefined;
    const now = { d: row?.name, pair: comparing ? `${selected.a}\n${selected.b}` : undefined };
    const same = now.d === shown.d && now.pair === shown.pair;
    shown = now;
    overview.hidden = comparing || row !== undefined;
    if (comparing) view.replaceChildren(back(), compareView(...pair));
    else if (row && same && document.getElementById('split')) document.getElementById('split').replaceWith(split(row, selected));
    else if (row) view.replaceChildren(back(), buildView(row, selected));
    else {
      view.replaceChildren();
      const filter = document.getElementById('filter');
      if (selected.q !== filter.value) {
        filter.value = selected.q;
        filterRows(selected.q);
      }
    }
    if (!same) {
      if (moved && (comparing || row)) focusOn(view.querySelector('h1'));
      scrollTo(0, 0);
      if (moved && !comparing && !row) focusOn(document.getElementById('filter'));
    }
    if (same && !selected.cap && !selected.line) return;
  }
  if (selected.cap || selected.line) {
    const why = document.getElementById('why');
    if (moved) {
      focusOn(why);
      say(why ? why.textContent : '');
    } else why?.scrollIntoView({ block: 'nearest' });
  }
}

document.getElementById('tools').append(themeSwitch());
if (page.one) {
  const row = page.rows[0];
  linkAnswer(document.getElementById('build'), row);
  if (row.left) document.querySelector('.answer .status').after(warning({ tone: 'unsure', label: 'Note', text: row.left }));
  if (row.detail) document.getElementById('build').append(trialsView(row.detail) ?? '');
} else {
  setUpMatrix();
  main.append(view);
  const code = document.getElementById('apply');
  if (code) code.after(copyButton(code));
}
// The way to the answer is no state of the page.
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  focusOn(main);
});
addEventListener('hashchange', route);
addEventListener('beforeprint', () => document.querySelectorAll('.why details').forEach((closed) => (closed.open = true)));
route();
performance.mark('kcap-ready');
document.documentElement.dataset.ready = 'yes';
