// The answer of one Dockerfile. The page of one report has its top from the start (markup.rs): keep
// both alike.

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

/** What forces each and what would avoid it, in the panel beside the lines. */
function needsList(row, { short, needs }) {
  const ways = short.map(([caps, way]) => el('li', {}, 'To drop ', el('b', {}, caps), `: ${way}`));
  const cards = el(
    'ul',
    { class: 'cards' },
    needs.map((need) =>
      el(
        'li',
        {},
        el(
          'p',
          {},
          need.caps.map((name) => [nameChip(name, need.unsure ? '?' : 'N', row), ' ']),
          need.lines.length === 0
            ? null
            : [need.lines.length === 1 ? 'line ' : 'lines ', lineLinks(row, need.lines), need.more > 0 ? ', …' : null, ' '],
          el('span', { class: 'muted' }, 'without it: '),
          el('b', { class: need.tone || null }, need.without),
        ),
        el('p', { class: 'asks' }, el('code', {}, bdi(need.why))),
        need.avoid.length > 0
          ? el('p', {}, el('b', { class: 'muted' }, 'Avoid '), need.avoid[0])
          : el('p', { class: 'none' }, 'Nothing is known that would avoid it.'),
        need.avoid.length > 1
          ? el('details', {}, el('summary', {}, `${need.avoid.length - 1} more to avoid`), need.avoid.slice(1).map((way) => el('p', {}, way)))
          : null,
      ),
    ),
  );
  return [ways.length > 0 ? el('ul', { class: 'short' }, ways) : null, cards];
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

/** Chips that are in the page of one report from the start become links. */
function linkAnswer(root, row) {
  for (const held of root.querySelectorAll('.answer [data-c]')) {
    const name = held.dataset.c;
    const made = nameChip(name, held.classList.contains('maybe') ? '?' : 'N', row);
    if (held.tagName === 'LI') {
      held.className = '';
      held.replaceChildren(made);
    } else held.replaceWith(made);
  }
  // The panel has it, beside the lines.
  if (row.detail) root.querySelector('.forces')?.remove();
  const code = root.querySelector('#apply');
  if (code) code.after(copyButton(code));
}
