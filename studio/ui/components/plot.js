// What the plots share. The namespace is that of the drawing in the template: no script names another host.
const NAMESPACE = element.querySelector('svg').namespaceURI;

function svg(tag, attributes, words) {
  const made = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  if (words != null) made.textContent = words;
  return made;
}

// Round values from `low` to `high`, about as many as are wanted, and the digits that tell them apart.
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough * .999);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) found.push(value);
  return [found, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))];
}

const padding = (low, high, share) => (high - low || Math.abs(high) || 1) * share;

function keyItem(picture, words) {
  const item = make('li');
  item.append(picture, make('span', '', words));
  return item;
}

function drawAgainWhenResized(root, area, draw) {
  new ResizeObserver(() => { if (!root.hidden && area.firstElementChild?.getAttribute('width') != area.clientWidth) draw(); }).observe(area);
}
