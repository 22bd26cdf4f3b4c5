// Why: a capability of a build, or a line, with the evidence.

/** Functions at the ends of every call path, which say nothing. */
const ENDS = new Set([
  '__traceiter_cap_capable',
  'cap_capable',
  'security_capable',
  'do_syscall_64',
  'entry_SYSCALL_64_after_hwframe',
  'x64_sys_call',
]);

function evidenceItem([, count, granted, letter, call, outcome, program, path, reason]) {
  const answer = granted === null ? 'decided without a check' : granted ? 'granted' : 'refused';
  const ended = text(outcome);
  const functions = path === null ? [] : page.paths[path].map(text).filter((name) => !ENDS.has(name));
  return el(
    'li',
    { class: `evidence ${VERDICTS[letter].chip}` },
    el(
      'p',
      { class: 'check' },
      el('b', {}, `${count.toLocaleString('en')} ×`),
      ' ',
      el('code', {}, call === null ? (granted === null ? 'exec' : 'outside any system call') : text(call)),
      ' by ',
      el('code', {}, bdi(text(program))),
      ' ',
      el('span', { class: granted === false && letter !== '.' ? 'bad' : 'muted' }, answer),
      ended === '' || ended === 'ok' ? null : el('span', { class: 'muted' }, `, the call ended with ${ended}`),
    ),
    el('p', { class: 'reason' }, text(reason)),
    functions.length > 0
      ? el(
          'details',
          {},
          el('summary', {}, 'Call path in the kernel'),
          el('ol', { class: 'path' }, functions.map((name) => el('li', {}, el('code', {}, name)))),
        )
      : null,
  );
}

function placeOf(detail, index) {
  const step = detail.steps.find((other) => other.index === index);
  if (!step) return { line: null, what: index === null ? 'other places' : `part ${index} of the build`, code: false };
  if (step.instruction) return { line: step.line, what: text(step.text), code: true };
  const about = detail.steps.find((other) => other.instruction && other.line === step.line && other.stage === step.stage);
  const of = about && step.line !== null ? `: ${text(about.text)}` : '';
  return { line: step.line, what: `${text(step.text)}${of}`, code: false };
}

/** Evidence by step, the steps that the verdict rests on first. */
function byStep(evidence) {
  const groups = new Map();
  for (const item of evidence) {
    if (!groups.has(item[0])) groups.set(item[0], []);
    groups.get(item[0]).push(item);
  }
  return groups;
}

const MOST = 6;

function evidenceList(items) {
  const list = el('ul', { class: 'evidences' }, items.slice(0, MOST).map(evidenceItem));
  if (items.length <= MOST) return list;
  const more = el(
    'button',
    {
      type: 'button',
      class: 'more',
      click: () => {
        const first = evidenceItem(items[MOST]);
        list.append(first, ...items.slice(MOST + 1).map(evidenceItem));
        first.tabIndex = -1;
        more.remove();
        first.focus();
      },
    },
    `${items.length - MOST} more`,
  );
  return [list, more];
}

function where(row, detail, capability, line) {
  const groups = [...byStep(capability.evidence)];
  const decisive = ([, items]) => items.some((item) => item[3] === capability.verdict);
  const there = ([step]) => line !== null && placeOf(detail, step).line === line;
  groups.sort((a, b) => there(b) - there(a) || decisive(b) - decisive(a));
  return groups.map(([step, items]) => {
    const place = placeOf(detail, step);
    const what = place.what.length > 200 ? place.what.slice(0, 200) + '…' : place.what;
    return el(
      'section',
      { class: 'place' },
      el(
        'h4',
        {},
        place.line === null ? null : [el('a', { href: fragment({ d: row.name, line: place.line }) }, `Line ${place.line}`), ' '],
        place.code ? el('code', {}, bdi(what)) : bdi(what),
      ),
      evidenceList(items),
    );
  });
}

const term = (name, ...content) => (content.flat().length > 0 ? [el('dt', {}, name), content.map((one) => el('dd', {}, one))] : null);

function proofText(row, detail, proof) {
  const place = proof.step === null ? null : placeOf(detail, proof.step);
  const said = { failed: 'the build failed', changed: 'the image changed', same: 'the same image' }[proof.outcome] ?? proof.outcome;
  return [
    el('b', {}, `A replay without it: ${said}. `),
    bdi(proof.detail),
    place && place.line !== null ? [' (', el('a', { href: fragment({ d: row.name, line: place.line }) }, `line ${place.line}`), ')'] : null,
  ];
}

function capView(row, detail, capability, line) {
  const fact = page.caps[capability.cap];
  const needed = capability.verdict !== '.';
  const counts = [
    capability.checks > 0 ? `asked for ${plural(capability.checks, 'time')}, ${capability.denied.toLocaleString('en')} refused` : null,
    capability.unasked > 0 ? `decided without a check ${plural(capability.unasked, 'time')}` : null,
  ].filter((part) => part !== null);
  return [
    el(
      'h2',
      { tabindex: '-1', id: 'why' },
      el('span', { class: `chip ${VERDICTS[capability.verdict].chip}` }, fact.name),
      ' ',
      VERDICTS[capability.verdict].word,
    ),
    el('p', { class: 'lead' }, text(capability.summary), '. ', el('span', { class: 'muted' }, counts.join('; '))),
    el(
      'dl',
      {},
      needed
        ? [
            term('Avoid', ...capability.avoid.map(text)),
            capability.proof ? term('Proof', ...[proofText(row, detail, capability.proof)]) : null,
            el('dt', {}, 'Without it'),
            el('dd', { class: capability.tone || null }, text(capability.without[1])),
            term('Silent', ...(fact.silent ? [fact.silent] : [])),
            capability.alternatives.length > 0
              ? term('Or', `${capability.alternatives.map(capName).join(' or ')} would do in its place`)
              : null,
          ]
        : null,
    ),
    el('h3', {}, 'Evidence'),
    capability.evidence.length > 0 ? where(row, detail, capability, line) : el('p', { class: 'small' }, 'None in this page.'),
    capability.more > 0
      ? el('p', { class: 'small' }, `${plural(capability.more, 'kind')} of checks are not in this page: `, el('code', {}, `kcap report --why ${fact.name}`))
      : null,
    el(
      'details',
      { class: 'about' },
      el('summary', {}, `About ${fact.name}`),
      el(
        'dl',
        {},
        term('Allows', fact.allows),
        needed ? term('Replay', `would settle: ${text(capability.replay)}`) : null,
        term('Pods', `with hostUsers: false: ${text(capability.userns)}`),
        term('Known', ...capability.known.map(([source, what]) => `${text(source)}: ${text(what)}`)),
        term('Notes', ...capability.notes.map(text)),
      ),
    ),
  ];
}

function lineView(row, detail, line) {
  const { found, around } = instructions(detail);
  const parts = [
    ...found.filter(({ step }) => step.line === line).flatMap((instruction) => instruction.parts),
    ...around.filter((step) => step.line === line),
  ];
  const first = parts.find((step) => step.instruction) ?? parts[0];
  // The instruction itself, then what needs something.
  parts.sort((x, y) => y.instruction - x.instruction || (y.required.length > 0) - (x.required.length > 0));
  if (!first) return [el('h2', { tabindex: '-1', id: 'why' }, `Line ${line}`), el('p', {}, 'Nothing is known of this line.')];
  return [
    el('h2', { tabindex: '-1', id: 'why' }, `Line ${line}`),
    el('p', { class: 'lead' }, instructionText(text(first.text))),
    first.holds === null ? null : el('p', { class: 'warning unsure' }, el('b', {}, 'Mixed'), ' ', text(first.holds)),
    parts.map((step) => {
      const asked = askedIn(detail, step);
      if (asked.length === 0) return null;
      return el(
        'section',
        { class: 'place' },
        step.instruction ? null : el('h3', {}, text(step.text)),
        asked.map(({ capability, letter, count }) => {
          const items = capability.evidence.filter((item) => item[0] === step.index);
          return el(
            'section',
            {},
            el(
              step.instruction ? 'h3' : 'h4',
              {},
              chip(capability.cap, letter, { d: row.name, line }),
              el('span', { class: 'muted' }, ` ${VERDICTS[letter].word}, ${plural(count, 'check')}`),
            ),
            letter === '.' || capability.avoid.length === 0
              ? null
              : el('p', { class: 'way' }, el('b', {}, 'Avoid '), text(capability.avoid[0])),
            items.length > 0 ? evidenceList(items) : null,
          );
        }),
      );
    }),
    parts.every((step) => askedIn(detail, step).length === 0) ? el('p', {}, 'It asked for no capability.') : null,
  ];
}

function trialsView(detail) {
  if (detail.trials.length === 0) return null;
  const heads = ['For', 'With', 'Came to', 'What differed'];
  return el(
    'details',
    { class: 'trials' },
    el('summary', {}, plural(detail.trials.length, 'replay')),
    el(
      'div',
      { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Replays' },
      el(
        'table',
        {},
        el('thead', {}, el('tr', {}, heads.map((head) => el('th', { scope: 'col' }, head)))),
        el(
          'tbody',
          {},
          detail.trials.map((trial) =>
            el(
              'tr',
              {},
              el('td', {}, text(trial.purpose)),
              el('td', {}, el('code', {}, trial.set || 'nothing')),
              el('td', {}, text(trial.outcome)),
              el('td', {}, trial.differs.map((what) => el('p', {}, bdi(text(what))))),
            ),
          ),
        ),
      ),
    ),
  );
}

/** The panel beside the source: for what is selected, else for all that is needed. */
function whyView(row, detail, selected) {
  const line = selected.line === null ? null : Number(selected.line);
  const named = detail.caps.find((capability) => capName(capability.cap) === selected.cap);
  let content;
  if (named) content = capView(row, detail, named, line);
  else if (selected.cap) {
    content = [
      el('h2', { tabindex: '-1', id: 'why' }, 'Not asked for'),
      el('p', {}, 'Nothing in this build asked for it, as far as was seen: ', bdi(selected.cap.slice(0, 40)), '.'),
    ];
  } else if (line !== null) content = lineView(row, detail, line);
  else {
    const needs = detail.answer?.needs ?? [];
    content = [
      el('h2', { tabindex: '-1', id: 'why' }, needs.length > 0 ? 'What forces each, and what would avoid it' : 'Nothing forces any'),
      needs.length > 0 ? needsList(row, detail.answer) : null,
    ];
  }
  return el(
    'aside',
    { class: 'why', 'aria-labelledby': 'why' },
    selected.cap || line !== null ? el('p', { class: 'all' }, el('a', { href: fragment({ d: row.name }) }, '← All needs')) : null,
    content,
    el('p', { class: 'up' }, el('a', { href: '#source', click: (event) => { event.preventDefault(); focusOn(document.querySelector('.listing a[aria-current], .listing a')); } }, 'Back to the lines')),
    others(row, detail),
  );
}

/** The other capabilities that the build asked for. */
function others(row, detail) {
  const idle = detail.caps.filter((capability) => !capability.required);
  if (idle.length === 0) return null;
  return el(
    'p',
    { class: 'others' },
    'Asked for, not needed: ',
    idle.map((capability) => [chip(capability.cap, capability.verdict, { d: row.name }), ' ']),
  );
}
