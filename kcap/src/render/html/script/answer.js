// The answer of one Dockerfile, as the page of one report has it from the start: keep both alike.

const warning = (fact) => el('p', { class: `warning ${fact.tone}` }, el('b', {}, fact.label), ' ', fact.text);

function nameChip(name, letter, row) {
  const place = page.caps.findIndex((cap) => cap.name === name);
  return chip(place, letter, { d: row.name });
}

function answerTop(row, answer) {
  const code = el('code', {}, answer.apply ?? '');
  const some = answer.sure.length + answer.unsure.length > 0;
  const nothing = answer.at_least === '' ? 'nothing' : 'what was not seen';
  return el(
    'div',
    { class: 'answer' },
    el('h1', { tabindex: '-1' }, bdi(row.name)),
    el('p', { class: 'status' }, answer.status),
    row.left ? warning({ tone: 'unsure', label: 'Note', text: row.left }) : null,
    answer.warnings.map(warning),
    answer.log.length > 0
      ? el('pre', { class: 'log', tabindex: '0', 'aria-label': "End of the executor's log" }, answer.log.join('\n'))
      : null,
    el(
      'div',
      { class: 'set' },
      el('h2', {}, 'Needs'),
      answer.at_least ? el('span', { class: 'least' }, answer.at_least) : null,
      some
        ? el(
            'ul',
            { class: 'chips' },
            answer.sure.map((name) => el('li', {}, nameChip(name, 'N', row))),
            answer.unsure.map((name) => el('li', {}, nameChip(name, '?', row))),
          )
        : el('strong', { class: 'nothing' }, nothing),
      answer.drops ? el('span', { class: 'drops' }, answer.drops) : null,
    ),
    answer.apply
      ? el('div', { class: 'apply' }, el('h2', {}, 'Apply'), code, copyButton(code))
      : null,
  );
}

function answerNeeds(row, needs) {
  if (needs.length === 0) return null;
  const heads = ['Capability', 'Line', 'What asks', 'Without it', 'What would avoid it'];
  return el(
    'table',
    { class: 'needs' },
    el('caption', {}, 'What forces each, and what would avoid it'),
    el('thead', {}, el('tr', {}, heads.map((head) => el('th', { scope: 'col' }, head)))),
    el(
      'tbody',
      {},
      needs.map((need) =>
        el(
          'tr',
          {},
          el(
            'th',
            { scope: 'row' },
            need.caps.map((name) => [nameChip(name, need.unsure ? '?' : 'N', row), ' ']),
          ),
          el('td', { class: 'lines' }, lineLinks(row, need.lines), need.more > 0 ? ', …' : null),
          el('td', {}, el('code', {}, bdi(need.why))),
          el('td', { class: need.tone || null }, need.without),
          el(
            'td',
            { class: 'avoid' },
            need.avoid.length > 0
              ? need.avoid.map((way) => el('p', {}, way))
              : el('p', { class: 'none' }, 'nothing known'),
          ),
        ),
      ),
    ),
  );
}

const lineLinks = (row, lines) =>
  lines.map((line, at) => [at > 0 ? ', ' : null, el('a', { href: fragment({ d: row.name, line }) }, line)]);

function answerFacts(facts) {
  if (facts.length === 0) return null;
  return el(
    'dl',
    { class: 'facts' },
    facts.map((fact, at) => [
      at > 0 && facts[at - 1].label === fact.label ? null : el('dt', {}, fact.label),
      el('dd', { class: fact.tone || null }, fact.text),
    ]),
  );
}

/** Chips and lines that are in the page of one report from the start become links. */
function linkAnswer(root, row) {
  for (const held of root.querySelectorAll('[data-c]')) {
    const name = held.dataset.c;
    const made = nameChip(name, held.classList.contains('maybe') ? '?' : 'N', row);
    if (held.tagName === 'LI') {
      held.className = '';
      held.replaceChildren(made);
    } else held.replaceWith(made);
  }
  for (const cell of root.querySelectorAll('td.lines')) {
    const lines = cell.textContent.match(/\d+/g) ?? [];
    const more = cell.textContent.includes('…') ? ', …' : '';
    cell.replaceChildren(...lineLinks(row, lines).flat().filter((part) => part !== null), more);
  }
  const code = root.querySelector('#apply');
  if (code) code.after(copyButton(code));
}
