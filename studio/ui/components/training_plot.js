const root = element.querySelector('.training');
const area = root.querySelector('.training-area');
const readout = root.querySelector('.training-readout');
const HEIGHT = 240, TOP = 28, BOTTOM = 34, LEFT = 52;
const TITLES = {latent: 'latent loss', pixel: 'pixel loss'};
let data = {}, place = null, pointed = null;

// 1, 2 and 5 of every power, as many of them as there is room for.
function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const digit of [1, 2, 5]) {
      const value = digit * 10 ** power;
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found.length > 7 ? found.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-6) : found;
}

const figure = (value) => value >= 100 ? value.toFixed(0) : value >= 1 ? value.toFixed(2) : value >= .01 ? value.toFixed(4) : value.toExponential(1);

function key(logarithmic) {
  const items = (data.lines || []).map((line) => ['line', line.name, TITLES[line.name] + (logarithmic ? ' (log)' : '')]);
  if ((data.scores || []).length) items.push(['point', 'score', 'held-out PSNR, dB']);
  root.querySelector('.training-key').replaceChildren(...items.map(([kind, name, words]) => {
    const picture = svg('svg', {viewBox: '0 0 22 12', width: 22, height: 12, 'aria-hidden': 'true'});
    picture.append(kind === 'line' ? svg('line', {x1: 0, x2: 22, y1: 6, y2: 6, class: 'training-line line-' + name})
      : svg('polygon', {points: '11,1 16,6 11,11 6,6', class: 'training-score'}));
    return keyItem(picture, words);
  }));
}

function memory() {
  const told = data.memory;
  const bars = root.querySelector('.training-memory');
  bars.hidden = !told;
  if (!told) return;
  const most = Math.max(told.held, told.full, 1);
  for (const kind of ['held', 'full']) {
    const row = bars.querySelector(`[data-kind="${kind}"]`);
    row.querySelector('b').style.width = Math.max(.5, 100 * told[kind] / most) + '%';
    row.querySelector('strong').textContent = told[kind + '_words'];
  }
}

function words(step) {
  const parts = [];
  for (const line of data.lines || []) {
    const point = line.points.find((each) => each[0] === step);
    if (point) parts.push(TITLES[line.name] + ' ' + figure(point[1]));
  }
  const score = (data.scores || []).find((each) => each[0] === step);
  if (score) parts.push('held-out PSNR ' + score[1].toFixed(2) + ' dB');
  return (step === 0 ? 'The model as it was' : 'Step ' + step) + ': ' + parts.join(', ');
}

function rest() {
  const scores = data.scores || [];
  const mean = data.mean_of > 1 ? ' Each point is the mean of ' + data.mean_of + ' steps.' : '';
  if (scores.length > 1) {
    const change = scores[scores.length - 1][1] - scores[0][1];
    return 'Held-out PSNR ' + (change < 0 ? '−' : '+') + Math.abs(change).toFixed(2) + ' dB since the start.' + mean;
  }
  return mean.trim();
}

function read(step) {
  pointed = step;
  const cursor = area.querySelector('.training-cursor');
  if (step == null || !place) { readout.textContent = rest(); cursor?.setAttribute('visibility', 'hidden'); return; }
  readout.textContent = words(step);
  if (cursor) {
    cursor.setAttribute('x1', place.x(step));
    cursor.setAttribute('x2', place.x(step));
    cursor.setAttribute('visibility', 'visible');
  }
}

function draw() {
  data = props.value || {};
  const lines = data.lines || [], scores = data.scores || [];
  const empty = !lines.length && !scores.length;
  root.hidden = empty && !data.memory;
  root.querySelector('.training-head').hidden = area.hidden = readout.hidden = empty;
  memory();
  if (empty) { area.replaceChildren(); place = null; return; }
  const width = Math.max(280, area.clientWidth || 600);
  const right = scores.length ? 50 : 14;
  const losses = lines.flatMap((line) => line.points.map((point) => point[1])).filter((value) => Number.isFinite(value));
  const total = Math.max(data.total || 1, 1);
  const x = (step) => LEFT + step / total * (width - LEFT - right);
  const logarithmic = losses.length > 0 && Math.min(...losses) > 0 && Math.max(...losses) / Math.min(...losses) > 8;
  const turn = logarithmic ? Math.log10 : (value) => value;
  let low = losses.length ? turn(Math.min(...losses)) : 0, high = losses.length ? turn(Math.max(...losses)) : 1;
  const pad = padding(low, high, .1);
  low -= pad; high += pad;
  if (!logarithmic && losses.length) low = Math.max(0, low);
  const y = (value) => TOP + (1 - (turn(value) - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  key(logarithmic);
  const picture = svg('svg', {viewBox: '0 0 ' + width + ' ' + HEIGHT, width, height: HEIGHT, role: 'presentation'});
  const [ys, digits] = !losses.length ? [[], 0] : logarithmic ? [logTicks(10 ** low, 10 ** high), null] : ticks(low, high, 4);
  for (const value of ys) {
    picture.append(svg('line', {x1: LEFT, x2: width - right, y1: y(value), y2: y(value), class: 'training-grid'}));
    picture.append(svg('text', {x: LEFT - 7, y: y(value) + 4, 'text-anchor': 'end'}, digits == null ? String(Number(value.toPrecision(1))) : value.toFixed(digits)));
  }
  const [xs] = ticks(0, total, Math.max(2, Math.min(8, width / 90)));
  for (const value of xs.filter((each) => Number.isInteger(each))) {
    picture.append(svg('line', {x1: x(value), x2: x(value), y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4, class: 'training-grid'}));
    picture.append(svg('text', {x: x(value), y: HEIGHT - BOTTOM + 17, 'text-anchor': 'middle'}, value));
  }
  picture.append(svg('line', {x1: LEFT, x2: width - right, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM, class: 'training-grid'}));
  picture.append(svg('text', {x: 2, y: 13, class: 'training-axis'}, losses.length ? 'loss' : ''));
  picture.append(svg('text', {x: (LEFT + width - right) / 2, y: HEIGHT - 3, 'text-anchor': 'middle', class: 'training-axis'}, 'steps'));
  picture.append(svg('line', {x1: 0, x2: 0, y1: TOP, y2: HEIGHT - BOTTOM, visibility: 'hidden', class: 'training-cursor'}));
  for (const line of lines) {
    picture.append(svg('polyline', {points: line.points.map(([step, value]) => x(step) + ',' + y(value)).join(' '), class: 'training-line line-' + line.name}));
    if (line.points.length === 1) picture.append(svg('circle', {cx: x(line.points[0][0]), cy: y(line.points[0][1]), r: 2.5, class: 'training-dot line-' + line.name}));
  }
  if (scores.length) {
    let least = Math.min(...scores.map((each) => each[1])), most = Math.max(...scores.map((each) => each[1]));
    const space = Math.max((most - least) * .25, .1);
    least -= space; most += space;
    const up = (score) => TOP + (1 - (score - least) / (most - least)) * (HEIGHT - TOP - BOTTOM);
    const [marks, places] = ticks(least, most, 4);
    for (const value of marks) picture.append(svg('text', {x: width - right + 7, y: up(value) + 4, class: 'training-score-tick'}, value.toFixed(places)));
    picture.append(svg('text', {x: width - 2, y: 13, 'text-anchor': 'end', class: 'training-axis'}, 'PSNR, dB'));
    for (const [step, score] of scores) {
      const spot = svg('g', {class: 'training-spot', 'data-step': step});
      const across = x(step), down = up(score);
      spot.append(svg('polygon', {points: `${across},${down - 6} ${across + 6},${down} ${across},${down + 6} ${across - 6},${down}`, class: 'training-score'}));
      spot.append(svg('title', {}, words(step)));
      picture.append(spot);
    }
  }
  area.replaceChildren(picture);
  const steps = [...new Set([...lines.flatMap((line) => line.points.map((point) => point[0])), ...scores.map((each) => each[0])])].sort((a, b) => a - b);
  place = {x, steps, width, right, total};
  read(steps.includes(pointed) ? pointed : null);
}

function nearest(event) {
  if (!place || !place.steps.length) return;
  const across = event.clientX - area.getBoundingClientRect().left;
  read(place.steps.reduce((best, step) => Math.abs(place.x(step) - across) < Math.abs(place.x(best) - across) ? step : best));
}
area.addEventListener('pointermove', nearest);
area.addEventListener('pointerdown', nearest);
area.addEventListener('pointerleave', () => read(null));
area.addEventListener('blur', () => read(null));
area.addEventListener('keydown', (event) => {
  if (!place || !['ArrowLeft', 'ArrowRight', 'Home', 'End'].includes(event.key)) return;
  event.preventDefault();
  const last = place.steps.length - 1;
  const at = place.steps.indexOf(pointed);
  const next = event.key === 'Home' ? 0 : event.key === 'End' ? last : at < 0 ? last : at + (event.key === 'ArrowRight' ? 1 : -1);
  read(place.steps[Math.min(last, Math.max(0, next))]);
});
drawAgainWhenResized(root, area, draw);
watch('value', draw);
draw();
