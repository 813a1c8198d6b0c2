const root = element.querySelector('.pareto');
const area = root.querySelector('.pareto-area');
const metric = root.querySelector('.pareto-metric');
const pace = root.querySelector('.pareto-pace');
const readout = root.querySelector('.pareto-readout');
const HEIGHT = 300, TOP = 30, BOTTOM = 44, LEFT = 52, RIGHT = 18;
const REST = 'Up is better, right is faster; the dashed line is the Pareto front. Click a point to see its clip and load its settings.';
let data = {};

// A disc, square, triangle, diamond, then the same hollow: methods stay apart without their colours.
function mark(shape, x, y, size) {
  const kind = shape % 4;
  const name = 'pareto-mark hue-' + (shape % 8) + (shape % 8 > 3 ? ' hollow' : '');
  if (kind === 0) return svg('circle', {cx: x, cy: y, r: size, class: name});
  const corners = {
    1: [[-.9, -.9], [.9, -.9], [.9, .9], [-.9, .9]],
    2: [[0, -1.15], [1.1, .85], [-1.1, .85]],
    3: [[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]],
  }[kind];
  return svg('polygon', {points: corners.map(([dx, dy]) => (x + dx * size) + ',' + (y + dy * size)).join(' '), class: name});
}

const numbers = (points) => points.filter((point) => point.speeds[pace.value] != null && point.scores[metric.value] != null);

function options() {
  const names = (data.metrics || []).map((each) => each.name).join();
  if (metric.dataset.names === names) return;
  const kept = metric.value;
  metric.dataset.names = names;
  metric.replaceChildren(...(data.metrics || []).map((each) => new Option(each.title, each.name)));
  if ((data.metrics || []).some((each) => each.name === kept)) metric.value = kept;
}

function key() {
  root.querySelector('.pareto-key').replaceChildren(...(data.methods || []).map((method) => {
    const picture = svg('svg', {viewBox: '-9 -9 18 18', width: 14, height: 14, 'aria-hidden': 'true'});
    picture.append(mark(method.shape, 0, 0, 6));
    return keyItem(picture, method.title);
  }));
}

function words(point, about) {
  const score = point.scores[about.name];
  const figure = score === 'inf' ? 'equal to the reference' : Number(score).toFixed(about.unit ? 2 : 4) + (about.unit ? ' ' + about.unit : '');
  return point.title + ': ' + point.speeds[pace.value].toFixed(2) + '× as fast, ' + about.title + ' ' + figure + (point.line ? ' · ' + point.line : '');
}

function draw() {
  data = props.value || {};
  const points = data.points || [];
  root.hidden = points.length < 2;
  if (root.hidden) { area.replaceChildren(); return; }
  options();
  key();
  const about = (data.metrics || []).find((each) => each.name === metric.value);
  const shown = numbers(points), medians = numbers(data.medians || []);
  if (!about || !shown.length) { area.replaceChildren(); readout.textContent = 'No figures yet.'; return; }
  const width = Math.max(280, area.clientWidth || 600);
  const speeds = shown.map((point) => point.speeds[pace.value]);
  const finite = shown.map((point) => point.scores[about.name]).filter((value) => value !== 'inf');
  const endless = finite.length < shown.length;
  const left = Math.min(.95, ...speeds.map((speed) => speed * .95)), right = Math.max(1.2, ...speeds) * 1.06;
  let low = Math.min(...finite), high = Math.max(...finite);
  if (!finite.length) { low = 0; high = 1; }
  const pad = padding(low, high, .12);
  low -= pad; high += pad;
  const top = TOP + (endless ? 26 : 0);
  const x = (speed) => LEFT + (speed - left) / (right - left) * (width - LEFT - RIGHT);
  const y = (score) => {
    if (score === 'inf') return TOP + 4;
    const share = (score - low) / (high - low);
    return top + (about.higher_is_better === false ? share : 1 - share) * (HEIGHT - top - BOTTOM);
  };
  const picture = svg('svg', {viewBox: '0 0 ' + width + ' ' + HEIGHT, width, height: HEIGHT, role: 'presentation'});
  const [xs, xDigits] = ticks(left, right, Math.max(3, Math.min(7, width / 90)));
  for (const value of xs) {
    picture.append(svg('line', {x1: x(value), x2: x(value), y1: TOP - 8, y2: HEIGHT - BOTTOM, class: 'pareto-grid'}));
    picture.append(svg('text', {x: x(value), y: HEIGHT - BOTTOM + 16, 'text-anchor': 'middle'}, value.toFixed(xDigits) + '×'));
  }
  const [ys, yDigits] = finite.length ? ticks(low, high, 4) : [[], 0];
  for (const value of ys) {
    picture.append(svg('line', {x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: 'pareto-grid'}));
    picture.append(svg('text', {x: LEFT - 7, y: y(value) + 4, 'text-anchor': 'end'}, value.toFixed(yDigits)));
  }
  if (endless) {
    picture.append(svg('line', {x1: LEFT, x2: width - RIGHT, y1: y('inf'), y2: y('inf'), class: 'pareto-grid endless'}));
    picture.append(svg('text', {x: LEFT - 7, y: y('inf') + 4, 'text-anchor': 'end'}, '∞'));
  }
  picture.append(svg('text', {x: 2, y: 13, class: 'pareto-axis'}, about.title + (about.unit ? ', ' + about.unit : '')));
  picture.append(svg('text', {x: width - RIGHT, y: HEIGHT - 8, 'text-anchor': 'end', class: 'pareto-axis'},
    'times as fast (' + pace.selectedOptions[0].textContent + ')'));
  const front = ((data.fronts || {})[pace.value] || {})[about.name] || [];
  if (front.length > 1) {
    picture.append(svg('polyline', {points: front.map(([speed, score]) => x(speed) + ',' + y(score)).join(' '), class: 'pareto-front'}));
  }
  const many = medians.length > 0;
  for (const point of shown) {
    const spot = svg('g', {class: 'pareto-point' + (many ? ' faint' : ''), tabindex: 0, role: 'button', 'data-cell': point.cell,
      'aria-label': words(point, about), 'aria-pressed': String(point.cell === data.chosen)});
    // A finger is wider than a mark.
    spot.append(svg('circle', {cx: x(point.speeds[pace.value]), cy: y(point.scores[about.name]), r: 14, class: 'pareto-reach'}));
    spot.append(mark(point.shape, x(point.speeds[pace.value]), y(point.scores[about.name]), many ? 4.5 : 6.5));
    spot.append(svg('title', {}, words(point, about)));
    picture.append(spot);
  }
  for (const median of medians) {
    const spot = svg('g', {class: 'pareto-median', 'aria-hidden': 'true'});
    spot.append(mark(median.shape, x(median.speeds[pace.value]), y(median.scores[about.name]), 8.5));
    picture.append(spot);
  }
  keepFocus(area, 'cell', () => area.replaceChildren(picture));
  const chosen = shown.find((point) => point.cell === data.chosen);
  readout.textContent = chosen ? words(chosen, about) : REST + (many ? ' Large marks are medians.' : '');
}

function pointed(event) {
  const spot = event.target.closest?.('.pareto-point');
  if (spot) readout.textContent = spot.getAttribute('aria-label');
}
function choose(spot) {
  if (spot) trigger('choose', {cell: Number(spot.dataset.cell)});
}
area.addEventListener('pointerover', pointed);
area.addEventListener('focusin', pointed);
area.addEventListener('click', (event) => choose(event.target.closest('.pareto-point')));
area.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' && event.key !== ' ') return;
  event.preventDefault();
  choose(event.target.closest('.pareto-point'));
});
metric.addEventListener('change', draw);
pace.addEventListener('change', draw);
drawAgainWhenResized(root, area, draw);
watch('value', draw);
draw();
