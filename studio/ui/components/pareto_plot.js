const root = element.querySelector('.pareto');
const area = root.querySelector('.pareto-area');
const metric = root.querySelector('.pareto-metric');
const pace = root.querySelector('.pareto-pace');
const readout = root.querySelector('.pareto-readout');
const HEIGHT = 300, TOP = 30, BOTTOM = 44, LEFT = 52, RIGHT = 18;
const REST = 'Up is better, right is faster; the dashed line is the Pareto front. ';
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
const paceShown = () => (data.paces || []).find((each) => each.name === pace.value) || {};

// A choice keeps what was chosen, as long as it is there.
function offer(select, choices) {
  const names = choices.map((each) => each.name).join();
  if (select.dataset.names === names) return;
  const kept = select.value;
  select.dataset.names = names;
  select.replaceChildren(...choices.map((each) => new Option(each.title, each.name)));
  if (choices.some((each) => each.name === kept)) select.value = kept;
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
  const figure = score === 'inf' ? data.perfect : Number(score).toFixed(about.digits) + (about.unit ? ' ' + about.unit : '');
  return point.title + ': ' + speedWords(point.speeds[pace.value]) + ', ' + about.title + ' ' + figure + (point.line ? ' · ' + point.line : '');
}

function speedWords(speed) {
  const shown = paceShown();
  return (shown.log ? String(Number(speed.toPrecision(3))) : speed.toFixed(2)) + shown.words;
}

// A ratio is drawn around 1; speeds that may lie far apart, by their logarithm.
function range(speeds) {
  if (paceShown().log) return [Math.min(...speeds) / 1.4, Math.max(...speeds) * 1.4];
  return [Math.min(.95, ...speeds.map((speed) => speed * .95)), Math.max(1.2, ...speeds) * 1.06];
}

// Powers of ten and, where there is room, their doubles and fives.
function decades(low, high, wanted) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    found.push(...[1, 2, 5].map((each) => each * 10 ** power).filter((value) => value >= low && value <= high));
  }
  const tens = found.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9);
  return [found.length > wanted + 2 && tens.length > 1 ? tens : found, 0];
}

function draw() {
  data = props.value || {};
  const points = data.points || [];
  root.hidden = points.length < 2;
  if (root.hidden) { area.replaceChildren(); return; }
  offer(metric, data.metrics || []);
  offer(pace, data.paces || []);
  root.querySelector('.pareto-paces').hidden = (data.paces || []).length < 2;
  key();
  const about = (data.metrics || []).find((each) => each.name === metric.value);
  const shown = numbers(points), medians = numbers(data.medians || []);
  if (!about || !shown.length) { area.replaceChildren(); readout.textContent = 'No figures yet.'; return; }
  const width = Math.max(280, area.clientWidth || 600);
  const speeds = shown.map((point) => point.speeds[pace.value]);
  const finite = shown.map((point) => point.scores[about.name]).filter((value) => value !== 'inf');
  const endless = finite.length < shown.length;
  const [left, right] = range(speeds);
  let low = Math.min(...finite), high = Math.max(...finite);
  if (!finite.length) { low = 0; high = 1; }
  const pad = padding(low, high, .12);
  low -= pad; high += pad;
  const top = TOP + (endless ? 26 : 0);
  const along = paceShown().log ? Math.log10 : (speed) => speed;
  const x = (speed) => LEFT + (along(speed) - along(left)) / (along(right) - along(left)) * (width - LEFT - RIGHT);
  const y = (score) => {
    if (score === 'inf') return TOP + 4;
    const share = (score - low) / (high - low);
    return top + (about.higher_is_better === false ? share : 1 - share) * (HEIGHT - top - BOTTOM);
  };
  const picture = svg('svg', {viewBox: '0 0 ' + width + ' ' + HEIGHT, width, height: HEIGHT, role: 'presentation'});
  const wanted = Math.max(3, Math.min(7, width / 90));
  const [xs, xDigits] = paceShown().log ? decades(left, right, wanted) : ticks(left, right, wanted);
  for (const value of xs) {
    picture.append(svg('line', {x1: x(value), x2: x(value), y1: TOP - 8, y2: HEIGHT - BOTTOM, class: 'pareto-grid'}));
    const written = paceShown().log ? String(Number(value.toPrecision(2))) : value.toFixed(xDigits);
    picture.append(svg('text', {x: x(value), y: HEIGHT - BOTTOM + 16, 'text-anchor': 'middle'}, written + (paceShown().unit || '')));
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
    paceShown().axis || ''));
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
  readout.textContent = chosen ? words(chosen, about) : REST + data.hint + (many ? ' ' + data.large : '');
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
