// Light and dark: as the system has it, unless chosen here. The choice is kept where the browser
// keeps anything for files.

const THEME = 'kcap-theme';

function kept() {
  try {
    return localStorage.getItem(THEME);
  } catch {
    return null;
  }
}

function setTheme(name) {
  const root = document.documentElement;
  if (name === 'light' || name === 'dark') root.dataset.theme = name;
  else delete root.dataset.theme;
  try {
    localStorage.setItem(THEME, name);
  } catch {
    // It holds until the page is closed.
  }
}

function themeSwitch() {
  const known = ['system', 'light', 'dark'];
  const now = known.includes(kept()) ? kept() : 'system';
  if (now !== 'system') setTheme(now);
  return el(
    'label',
    { class: 'theme' },
    'Theme ',
    el(
      'select',
      { id: 'theme', change: (event) => setTheme(event.target.value) },
      known.map((name) => el('option', { value: name, selected: name === now }, name)),
    ),
  );
}
