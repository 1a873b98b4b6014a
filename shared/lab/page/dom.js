// Small helpers to make elements. Data only ever becomes text or an attribute,
// never markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(e, attrs, children) {
  for (const [name, value] of Object.entries(attrs || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
    else e.setAttribute(name, value === true ? '' : value);
  }
  for (const c of children.flat(Infinity)) {
    if (c === null || c === undefined || c === false) continue;
    e.append(c instanceof Node ? c : document.createTextNode(String(c)));
  }
  return e;
}

export const h = (tag, attrs, ...children) => fill(document.createElement(tag), attrs, children);
export const s = (tag, attrs, ...children) => fill(document.createElementNS(SVG, tag), attrs, children);

// label names a shape. The name begins with what is written in the shape, because
// people who speak to the computer say what they see.
export function label(e, text) {
  const texts = [...e.querySelectorAll('text')];
  for (const t of texts) if (!t.textContent.endsWith(' ')) t.append(' '); // not shown; it parts the words for who cannot see the picture
  const seen = texts.map((t) => t.textContent).join('').trim();
  e.setAttribute('aria-label', seen ? `${seen}: ${text}` : text);
}

// button makes a shape act as a button, for the mouse and for the keyboard.
export function button(e, text, act) {
  e.setAttribute('tabindex', '0');
  e.setAttribute('role', 'button');
  label(e, text);
  e.addEventListener('click', (ev) => { ev.stopPropagation(); act(e, ev); });
  e.addEventListener('keydown', (ev) => {
    if (ev.key === 'Enter' || ev.key === ' ') { ev.preventDefault(); ev.stopPropagation(); act(e, ev); }
  });
  return e;
}

export const calm = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

// time writes virtual time, given in nanoseconds.
export function time(ns) {
  const ms = ns / 1e6;
  if (ms >= 1000) return (ms / 1000).toFixed(3) + ' s';
  return ms.toFixed(ms < 10 ? 2 : 1) + ' ms';
}

export const name = (id) => 'n' + id;

// names lists servers as a sentence does: n1, n2 and n3.
export const names = (ids) => ids.map(name).join(', ').replace(/, (?=[^,]*$)/, ' and ');

// termClass names the color and the pattern of a term in the style sheet.
export const termClass = (term) => 'term-' + (term ? (term - 1) % 8 + 1 : 0);

// patterns are the textures of the terms, so that they can be told apart without
// color. The first term of every eight is plain.
export function patterns(prefix) {
  const texture = [
    '', 'M-1,1 l2,-2 M0,8 l8,-8 M7,9 l2,-2', 'M2,2 h.1 M6,6 h.1', 'M0,4 h8', 'M-1,7 l2,2 M0,0 l8,8 M7,-1 l2,2',
    'M4,0 v8', 'M0,4 h8 M4,0 v8', 'M0,8 l8,-8 M0,0 l8,8',
  ];
  return s('defs', {}, texture.map((d, i) => d && s('pattern', { id: `${prefix}-${i + 1}`, width: 8, height: 8, patternUnits: 'userSpaceOnUse' },
    s('path', { d, class: 'texture', 'stroke-width': i === 2 ? 2.6 : 1.3, 'stroke-linecap': 'round', fill: 'none' }))));
}

export const pattern = (prefix, term) => (term && (term - 1) % 8 ? `url(#${prefix}-${(term - 1) % 8 + 1})` : 'none');
