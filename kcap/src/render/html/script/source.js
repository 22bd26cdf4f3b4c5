// A Dockerfile line by line, with what each instruction needs in the margin.

/** The parts of a build, each instruction with the executor's work around it. */
function instructions(detail) {
  const found = [];
  const around = [];
  for (const step of detail.steps) {
    if (step.instruction) {
      found.push({ step, parts: [step] });
      continue;
    }
    const same = (other) => other.step.line === step.line && other.step.stage === step.stage;
    const of = step.line === null ? undefined : (found.findLast(same) ?? found.findLast((other) => other.step.line === step.line));
    if (of) of.parts.push(step);
    else around.push(step);
  }
  return { found, around };
}

/** The capabilities that a step asked for: place, letter, count; those that it requires first. */
function askedIn(detail, step) {
  const asked = [];
  for (const capability of detail.caps) {
    const counted = capability.steps.find(([index]) => index === step.index);
    const required = step.required.includes(capability.cap);
    if (!counted && !required) continue;
    asked.push({ capability, letter: required ? capability.verdict : '.', count: counted ? counted[1] : 0 });
  }
  return asked.sort((a, b) => (b.letter !== '.') - (a.letter !== '.'));
}

const STATES = { cached: 'cached, not seen', unreached: 'not reached, not seen', skipped: 'left out' };

function margin(row, detail, parts) {
  const lines = parts.map((step) => {
    const asked = askedIn(detail, step).filter(({ letter }) => letter !== '.');
    if (asked.length === 0) return null;
    return el(
      'div',
      {},
      step.instruction ? null : el('span', { class: 'phase' }, text(step.kind), ' '),
      asked.map(({ capability, letter }) => [
        chip(capability.cap, letter, { d: row.name, line: step.line }),
        ' ',
      ]),
    );
  });
  const state = text(parts[0].state);
  const badge = STATES[state] ? el('span', { class: `badge ${state}` }, STATES[state]) : null;
  return [badge, lines];
}

/** The instruction's text: its keyword stands out, and a chain of commands has a line for each. */
function instructionText(content) {
  const word = content.match(/^[A-Za-z]+/);
  const keyword = word ? word[0] : '';
  const rest = content.slice(keyword.length);
  const chained = keyword.toUpperCase() === 'RUN' ? rest.split(/(?<= )(?=&& )/) : [rest];
  return el(
    'code',
    { class: 'text' },
    bdi([
      keyword ? el('b', {}, keyword) : null,
      chained.map((part, at) => (at === 0 ? part : el('span', { class: 'chained' }, part))),
    ]),
  );
}

function weight(parts) {
  const needed = new Set(parts.flatMap((step) => step.required));
  return needed.size === 0 ? '' : needed.size < 3 ? 'w1' : 'w2';
}

function sourceRow(row, detail, { step, parts }, selected, stages) {
  const line = step.line;
  const here = selected.line !== null && Number(selected.line) === line;
  const hit = parts.some((part) => part.required.some((cap) => capName(cap) === selected.cap));
  const first = stages && step.stage !== null && text(step.kind) === 'from';
  return el(
    'tr',
    { class: [weight(parts), here ? 'here' : '', hit ? 'hit' : '', first ? 'stage' : ''].join(' ').trim() || null },
    el(
      'th',
      { scope: 'row', class: 'number' },
      line === null
        ? '-'
        : el(
            'a',
            {
              href: fragment({ d: row.name, line }),
              'aria-label': `Line ${line}: evidence`,
              'aria-current': here ? 'true' : null,
            },
            line,
          ),
    ),
    el('td', { class: 'instruction' }, instructionText(text(step.text))),
    el('td', { class: 'margin' }, margin(row, detail, parts)),
  );
}

/** The executor's work that belongs to no line, where it asked for anything. */
function aroundRows(row, detail, around) {
  const asking = around.filter((step) => step.required.length > 0);
  return asking.map((step) =>
    el(
      'tr',
      { class: weight([step]) || null },
      el('th', { scope: 'row', class: 'number' }, '-'),
      el('td', { class: 'instruction' }, el('span', { class: 'phase' }, text(step.text))),
      el('td', { class: 'margin' }, margin(row, detail, [step])),
    ),
  );
}

function sourceView(row, detail, selected) {
  const { found, around } = instructions(detail);
  const stages = new Set(found.map(({ step }) => step.stage)).size > 1;
  const heredoc = found.some(({ step }) => text(step.text).includes('<<'));
  return el(
    'section',
    { class: 'source', 'aria-labelledby': 'source' },
    el('h2', { id: 'source' }, found.length > 0 ? 'Line by line' : 'Parts of the build'),
    el(
      'table',
      { class: 'listing' },
      el(
        'thead',
        { class: 'unseen' },
        el('tr', {}, ['Line', 'Instruction', 'Needs'].map((head) => el('th', { scope: 'col' }, head))),
      ),
      el(
        'tbody',
        {},
        found.map((instruction) => sourceRow(row, detail, instruction, selected, stages)),
        aroundRows(row, detail, around),
      ),
    ),
    heredoc ? el('p', { class: 'small' }, 'The lines of here-documents are not part of a report.') : null,
  );
}
