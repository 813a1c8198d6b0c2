const root = element.querySelector('.live');
const image = root.querySelector('img');
const stages = root.querySelector('.live-stages');
const notices = root.querySelector('.live-notices');
let data = {};
let arrived = 0;

const pick = (selector) => root.querySelector(selector);
const seconds = (value) => value >= 90 ? Math.floor(value / 60) + ' min ' + Math.round(value % 60) + ' s'
  : value >= 10 ? Math.round(value) + ' s' : value >= 1 ? value.toFixed(1) + ' s' : Math.round(value * 1000) + ' ms';

// The server says how long it has been; between two words from it the clock runs here.
function tick() {
  const since = (performance.now() - arrived) / 1000;
  const running = data.state === 'running' || data.state === 'starting';
  pick('.live-clock').hidden = data.elapsed == null;
  if (data.elapsed != null) pick('.clock-elapsed').textContent = seconds(data.elapsed + (running ? since : 0));
  pick('.clock-left').hidden = !running || data.eta == null;
  if (data.eta != null) pick('.clock-eta').textContent = '≈ ' + seconds(Math.max(0, data.eta - since));
}

function draw() {
  const before = data.state;
  data = props.value || {};
  arrived = performance.now();
  root.dataset.state = data.state || 'idle';
  for (const name of ['headline', 'prompt', 'detail']) write(pick('.live-' + name), data[name]);
  image.hidden = !data.preview;
  if (data.preview && image.src !== data.preview) image.src = data.preview;
  if (data.preview) image.alt = 'What the model has so far, after step ' + (data.preview_step + 1);
  write(pick('.live-caption'), data.preview ? 'estimate after step ' + (data.preview_step + 1) : '');
  stages.replaceChildren(...(data.stages || []).map(({name, seconds: spent}) => (
    spent == null ? make('li', 'under-way', name + ' …') : make('li', 'done', name + ' ' + seconds(spent)))));
  notices.replaceChildren(...(data.notices || []).map((words) => make('li', '', words)));
  tick();
  // Where the form and the picture lie one under the other, what was just begun is brought into sight.
  const begun = before && before !== data.state && (data.state === 'queued' || data.state === 'starting');
  if (begun && innerWidth < 760) root.scrollIntoView({block: 'start'});
}

watch('value', draw);
draw();
const timer = setInterval(() => root.isConnected ? tick() : clearInterval(timer), 500);
