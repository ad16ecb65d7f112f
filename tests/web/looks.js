// What is wrong with how the page looks. Everything is measured in CSS pixels; a pixel or two of rounding is no fault.
() => {
  const bad = [];
  const name = (e) => `<${e.tagName.toLowerCase()}${e.id ? '#' + e.id : ''}${e.className && e.className.baseVal === undefined ? '.' + e.className.trim().split(/\s+/).join('.') : ''}> ${(e.innerText ?? '').trim().slice(0, 40)}`;
  const seen = (e) => e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) && !e.closest('.hidden, .skip, dialog:not([open])');
  const wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > wide + 1) bad.push(`scrolls sideways: ${document.documentElement.scrollWidth} of ${wide}`);

  // Words: each line of each piece of text, and each thing to press or fill in.
  const boxes = [];
  const floats = (e) => e.closest('.zoom, .toast, .balloon, option, datalist, noscript');
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const small = new Set();
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const parent = node.parentElement;
    if (!node.data.trim() || !parent || floats(parent) || !seen(parent) || parent.closest('script, style, select, textarea')) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const r of range.getClientRects()) if (r.width > 1 && r.height > 1) boxes.push([parent, r, 'text']);
    const size = parseFloat(getComputedStyle(parent).fontSize);
    if (size < 10.5 && !small.has(parent)) { small.add(parent); bad.push(`${size} px is too small to read: ${name(parent)}`); }
  }
  for (const e of document.querySelectorAll('button, input:not([type=hidden]), select, textarea, summary')) {
    if (seen(e) && !floats(e)) boxes.push([e, e.getBoundingClientRect(), 'control']);
  }

  // A box that scrolls or is clipped shows no more than its own area.
  const shown = (e, r) => {
    let [l, t, right, b] = [r.left, r.top, r.right, r.bottom];
    for (let up = e; up && up !== document.body; up = up.parentElement) {
      const s = getComputedStyle(up);
      if (s.overflowX === 'visible' && s.overflowY === 'visible') continue;
      const o = up.getBoundingClientRect();
      [l, t, right, b] = [Math.max(l, o.left), Math.max(t, o.top), Math.min(right, o.right), Math.min(b, o.bottom)];
    }
    return { left: l, top: t, right, bottom: b };
  };
  const placed = boxes.map(([e, r, kind]) => [e, shown(e, r), kind]).filter(([, r]) => r.right - r.left > 1 && r.bottom - r.top > 1);
  for (const [e, r] of placed) if (r.left < -1 || r.right > wide + 1) bad.push(`sticks out of the page: ${name(e)}`);
  placed.sort((a, b) => a[1].top - b[1].top);
  for (let i = 0; i < placed.length; i++) {
    const [a, r, k] = placed[i];
    for (let j = i + 1; j < placed.length && placed[j][1].top < r.bottom - 3; j++) {
      const [b, s, m] = placed[j];
      if (a === b || (k === 'control' || m === 'control') && (a.contains(b) || b.contains(a))) continue;
      const w = Math.min(r.right, s.right) - Math.max(r.left, s.left);
      const h = Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top);
      // Lines of text stand closer together than their boxes are high.
      if (w > 2 && h > (k === 'text' && m === 'text' ? 0.4 * Math.min(r.bottom - r.top, s.bottom - s.top) : 2)) {
        const fixed = [a, b].some((e) => getComputedStyle(e.closest('.bar, thead, .side') ?? e).position === 'sticky' && e.closest('thead'));
        if (!fixed) bad.push(`${name(a)} lies over ${name(b)}`);
      }
    }
  }

  // Cut off: more inside than shows, and no way to see it all.
  for (const e of document.querySelectorAll('body *')) {
    const s = getComputedStyle(e);
    if (!seen(e) || e.closest('svg, select, input, textarea, .stage') || !e.innerText?.trim()) continue;
    const hidesX = ['hidden', 'clip'].includes(s.overflowX) && e.scrollWidth > e.clientWidth + 1;
    const hidesY = ['hidden', 'clip'].includes(s.overflowY) && e.scrollHeight > e.clientHeight + 2;
    const told = e.title || e.closest('[title]') || e.querySelector('[title]');
    if ((hidesX || hidesY) && !told) bad.push(`cut off, and nothing tells the rest: ${name(e)}`);
  }
  for (const e of document.querySelectorAll('button, td, th, summary')) {
    if (seen(e) && e.scrollWidth > e.clientWidth + 2 && e.clientWidth && getComputedStyle(e).display !== 'inline') bad.push(`too narrow for its words: ${name(e)}`);
  }

  // Empty: a panel, a table's body, a list or a plot with nothing in it.
  for (const e of document.querySelectorAll('main .panel, main tbody, main section, main figure, main ul, main ol, main dl, main h1, main h2, main h3')) {
    if (seen(e) && !e.innerText.trim() && !e.querySelector('img, svg, canvas, input, select')) bad.push(`empty: ${name(e)}`);
  }
  for (const canvas of document.querySelectorAll('main figure canvas, main .chart canvas')) {
    if (!seen(canvas) || !canvas.width || canvas.closest('.scale') || canvas.closest('.is-empty')) continue;
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let ink = 0;
    for (let i = 3; i < data.length; i += 4) if (data[i] > 20) ink++;
    if (ink < 20) bad.push(`nothing drawn: ${name(canvas.parentElement)} in ${name(canvas.closest('figure, section'))}`);
  }
  return [...new Set(bad)];
}
