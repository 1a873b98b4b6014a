// Saving what is shown as an SVG file that needs no style sheet.

import { s } from './dom.js';

const PROPERTIES = ['fill', 'fill-opacity', 'stroke', 'stroke-width', 'stroke-dasharray', 'stroke-linecap', 'stroke-linejoin', 'opacity', 'font-family', 'font-size', 'font-weight', 'font-style', 'text-anchor', 'paint-order'];

export function picture(svg) {
  const copy = svg.cloneNode(true);
  const from = [svg, ...svg.querySelectorAll('*')], to = [copy, ...copy.querySelectorAll('*')];
  from.forEach((e, i) => {
    const style = getComputedStyle(e);
    to[i].setAttribute('style', PROPERTIES.map((p) => `${p}:${style.getPropertyValue(p)}`).join(';'));
    for (const a of ['class', 'tabindex', 'role', 'aria-label']) if (i) to[i].removeAttribute(a);
  });
  const [, , width, height] = svg.getAttribute('viewBox').split(' ');
  copy.setAttribute('width', width);
  copy.setAttribute('height', height);
  copy.prepend(s('rect', { width, height, style: `fill:${getComputedStyle(document.getElementById('scene')).backgroundColor}` }));
  return new XMLSerializer().serializeToString(copy);
}

export function save(svg, name) {
  const url = URL.createObjectURL(new Blob([picture(svg)], { type: 'image/svg+xml' }));
  const a = document.createElement('a');
  a.href = url;
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
