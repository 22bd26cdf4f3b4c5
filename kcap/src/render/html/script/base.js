// What all parts of the page use. The data is text that others wrote: it becomes text of elements,
// and never markup.

const page = JSON.parse(document.getElementById('data').textContent);

/** The text at a place; empty where there is none. */
const text = (place) => (place === null || place === undefined ? '' : page.strings[place]);

/** The name of a capability by its place. */
const capName = (place) => page.caps[place].name;

/** What a letter of the data says. */
const VERDICTS = {
  N: { word: 'needed', chip: 'sure' },
  '?': { word: 'unsure', chip: 'maybe' },
  '.': { word: 'asked for, not needed', chip: 'idle' },
  ' ': { word: 'never asked for', chip: 'idle' },
};

/**
 * An element. Attributes that are functions are listeners, those that are null are left out;
 * children are elements, texts, lists of them, or null.
 */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, '');
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A text that may run from right to left, kept apart from what surrounds it. */
const bdi = (content) => el('bdi', {}, content);

/** The fragment that leads to a state of the page. */
function fragment(state) {
  const given = Object.entries(state).filter(([, value]) => value !== null && value !== undefined && value !== '');
  return '#' + new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
}

/** A chip that leads to a capability of a Dockerfile. */
function chip(cap, letter, state) {
  const { word, chip: kind } = VERDICTS[letter];
  const name = capName(cap);
  return el(
    'a',
    { class: `chip ${kind}`, href: fragment({ ...state, cap: name }), 'aria-label': `${name}, ${word}` },
    name,
    letter === '?' ? el('small', { 'aria-hidden': 'true' }, '?') : null,
  );
}

const plural = (count, one, many = one + 's') => `${count.toLocaleString('en')} ${count === 1 ? one : many}`;

/** Tells readers of screens, once they have nothing else to tell. */
let toSay = 0;
function say(what) {
  clearTimeout(toSay);
  toSay = setTimeout(() => {
    document.getElementById('said').textContent = what;
  }, 300);
}

/** A button that copies what a code element holds, where the browser lets it. */
function copyButton(code) {
  return el(
    'button',
    {
      type: 'button',
      class: 'copy',
      click: async () => {
        try {
          await navigator.clipboard.writeText(code.textContent);
          say('Copied');
        } catch {
          getSelection().selectAllChildren(code);
          say('Selected: copy it with your keyboard');
        }
      },
    },
    'Copy',
  );
}
