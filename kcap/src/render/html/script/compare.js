// Two Dockerfiles side by side: sets, capabilities, instructions.

/** The longest common part of two lists, as pairs; what is in one only has null for the other. */
function align(left, right, same) {
  const most = 400;
  const [a, b] = [left.slice(0, most), right.slice(0, most)];
  const lengths = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      lengths[i][j] = same(a[i], b[j]) ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  const pairs = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && same(a[i], b[j])) pairs.push([a[i++], b[j++]]);
    else if (j >= b.length || (i < a.length && lengths[i + 1][j] >= lengths[i][j + 1])) pairs.push([a[i++], null]);
    else pairs.push([null, b[j++]]);
  }
  return besides(pairs);
}

/** What is in one only stands beside what is in the other only, where they follow each other. */
function besides(pairs) {
  const done = [];
  let [left, right] = [[], []];
  const flush = () => {
    for (let at = 0; at < Math.max(left.length, right.length); at += 1) done.push([left[at] ?? null, right[at] ?? null]);
    [left, right] = [[], []];
  };
  for (const [x, y] of pairs) {
    if (x !== null && y !== null) {
      flush();
      done.push([x, y]);
    } else if (y === null) left.push(x);
    else right.push(y);
  }
  flush();
  return done;
}

function chooser(which, row, state) {
  return el(
    'label',
    {},
    which === 'a' ? 'First ' : 'Second ',
    el(
      'select',
      {
        id: `choose-${which}`,
        change: (event) => {
          location.hash = fragment({ ...state, [which]: page.rows[event.target.value].name });
        },
      },
      page.rows.map((other, at) => el('option', { value: at, selected: other === row }, other.name)),
    ),
  );
}

function sets(a, b) {
  const needs = (row) => page.columns.filter((_, column) => 'N?'.includes(row.cells[column]));
  const [left, right] = [needs(a), needs(b)];
  const list = (caps, row) =>
    caps.length === 0
      ? el('span', { class: 'muted' }, 'none')
      : caps.map((cap) => [chip(cap, row.cells[page.columns.indexOf(cap)], { d: row.name }), ' ']);
  return el(
    'dl',
    { class: 'sets' },
    el('dt', {}, 'Both'),
    el('dd', {}, list(left.filter((cap) => right.includes(cap)), a)),
    el('dt', {}, 'Only the first'),
    el('dd', {}, list(left.filter((cap) => !right.includes(cap)), a)),
    el('dt', {}, 'Only the second'),
    el('dd', {}, list(right.filter((cap) => !left.includes(cap)), b)),
  );
}

/** Lines of a Dockerfile that a capability is needed in. */
function neededIn(row, cap) {
  const steps = row.detail ? row.detail.steps : [];
  return [...new Set(steps.filter((step) => step.required.includes(cap) && step.line !== null).map((step) => step.line))].sort((x, y) => x - y);
}

function capabilitiesTable(a, b) {
  const cell = (row, column, cap) => {
    const letter = row.cells[column];
    const lines = neededIn(row, cap);
    return el(
      'td',
      { class: { N: 'N', '?': 'Q', '.': 'D', ' ': '' }[letter] || null },
      VERDICTS[letter].word,
      lines.length > 0 ? [lines.length === 1 ? ', line ' : ', lines ', lineLinks(row, lines.slice(0, 8)), lines.length > 8 ? ', …' : ''] : null,
    );
  };
  const asked = page.columns
    .map((cap, column) => ({ cap, column }))
    .filter(({ column }) => a.cells[column] !== ' ' || b.cells[column] !== ' ');
  return el(
    'table',
    { class: 'pairs' },
    el('caption', {}, 'Capabilities'),
    el('thead', {}, el('tr', {}, ['Capability', 'First', 'Second'].map((head) => el('th', { scope: 'col' }, head)))),
    el(
      'tbody',
      {},
      asked.map(({ cap, column }) =>
        el(
          'tr',
          { class: a.cells[column] === b.cells[column] ? null : 'differs' },
          el('th', { scope: 'row' }, capName(cap)),
          cell(a, column, cap),
          cell(b, column, cap),
        ),
      ),
    ),
  );
}

function instructionsTable(a, b) {
  if (!a.detail || !b.detail) return el('p', { class: 'small' }, 'The instructions of both are not in this page.');
  const of = (row) => instructions(row.detail).found;
  const pairs = align(of(a), of(b), (x, y) => text(x.step.text) === text(y.step.text));
  const cell = (row, instruction) =>
    instruction === null
      ? el('td', { class: 'absent' })
      : el(
          'td',
          {},
          el('a', { class: 'number', href: fragment({ d: row.name, line: instruction.step.line }) }, instruction.step.line ?? '-'),
          instructionText(text(instruction.step.text)),
          el('div', { class: 'margin' }, margin(row, row.detail, instruction.parts)),
        );
  return el(
    'table',
    { class: 'pairs instructions' },
    el('caption', {}, 'Instructions'),
    el('thead', {}, el('tr', {}, ['First', 'Second'].map((head) => el('th', { scope: 'col' }, head)))),
    el('tbody', {}, pairs.map(([x, y]) => el('tr', { class: x && y && text(x.step.text) === text(y.step.text) ? null : 'differs' }, cell(a, x), cell(b, y)))),
  );
}

function compareView(a, b) {
  const state = { a: a.name, b: b.name };
  return el(
    'article',
    { class: 'compare' },
    el('h1', { tabindex: '-1' }, 'Compare two Dockerfiles'),
    el('div', { class: 'choosers' }, chooser('a', a, state), chooser('b', b, state)),
    sets(a, b),
    capabilitiesTable(a, b),
    instructionsTable(a, b),
  );
}
