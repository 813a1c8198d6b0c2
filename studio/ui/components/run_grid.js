const root = element.querySelector('.runs');
const grid = root.querySelector('.runs-grid');
const WORDS = {running: 'running', complete: '', failed: 'failed', cancelled: 'stopped', interrupted: 'interrupted'};

function tile(run, chosen) {
  const item = make('li');
  const button = makeButton('run-tile');
  button.dataset.run = run.id;
  button.dataset.state = run.state;
  button.setAttribute('aria-pressed', String(run.id === chosen));
  const frame = make('span', 'run-frame');
  if (run.poster) frame.append(makeImage(run.poster));
  const state = run.partial ? 'partial' : WORDS[run.state] ?? run.state;
  if (state) frame.append(make('span', 'run-badge', state));
  const prompt = make('span', 'run-prompt', run.prompt);
  prompt.title = run.prompt;
  button.append(frame, prompt, make('span', 'run-line figures', run.line));
  item.append(button);
  return item;
}

function draw() {
  const data = props.value || {};
  const runs = data.runs || [];
  keepFocus(grid, 'run', () => grid.replaceChildren(...runs.map((run) => tile(run, data.chosen))));
  root.querySelector('.runs-count').textContent = data.total == null ? '' : data.total === 0 ? data.empty || 'No runs yet.'
    : runs.length < data.total ? runs.length + ' of ' + data.total + ' runs' : data.total + (data.total === 1 ? ' run' : ' runs');
}

grid.addEventListener('click', (event) => {
  const button = event.target.closest('.run-tile');
  if (!button) return;
  grid.querySelectorAll('.run-tile').forEach((other) => other.setAttribute('aria-pressed', String(other === button)));
  trigger('choose', {run: button.dataset.run});
});
watch('value', draw);
draw();
