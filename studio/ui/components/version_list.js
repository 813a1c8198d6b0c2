const root = element.querySelector('.versions');
const table = root.querySelector('table');
const NAMES = ['steps', 'model, dB', 'version, dB', 'gain, dB'];
let drawn = '';

function make(tag, words, name, role) {
  const made = document.createElement(tag);
  if (words != null) made.textContent = words;
  if (name) made.className = name;
  if (role) made.setAttribute('role', role);
  return made;
}

function row(version, chosen) {
  const line = make('tr', null, 'version', 'row');
  line.dataset.version = version.id;
  line.dataset.state = version.state;
  const head = make('th', null, '', 'rowheader');
  head.scope = 'row';
  const button = make('button', null, 'version-choose');
  button.type = 'button';
  button.setAttribute('aria-pressed', String(version.id === chosen));
  const title = make('span', version.title, 'version-title');
  const about = make('span', version.line, 'version-line');
  const marks = make('span', null, 'version-marks');
  if (version.promoted) marks.append(make('b', 'promoted', 'version-promoted'));
  if (version.state !== 'complete') marks.append(make('span', version.state, 'version-state'));
  if (version.worse) marks.append(make('span', 'worse than the model it came from', 'version-worse'));
  button.append(title, about);
  if (marks.childElementCount) button.append(marks);
  head.append(button);
  line.append(head);
  [version.steps, version.base, version.own, version.gain].forEach((words, index) => {
    const cell = make('td', words, 'figures', 'cell');
    cell.dataset.label = NAMES[index];
    line.append(cell);
  });
  return line;
}

function draw() {
  const data = props.value || {};
  const versions = data.versions || [];
  const words = JSON.stringify(data);
  if (words === drawn) return;
  drawn = words;
  const held = table.contains(document.activeElement) ? document.activeElement.closest('.version')?.dataset.version : null;
  table.hidden = !versions.length;
  root.querySelector('.versions-empty').textContent = versions.length ? '' : data.empty || '';
  root.querySelector('.versions-empty').hidden = versions.length > 0;
  table.tBodies[0].replaceChildren(...versions.map((version) => row(version, data.chosen)));
  if (held) table.querySelector(`[data-version="${CSS.escape(held)}"] button`)?.focus();
}

table.addEventListener('click', (event) => {
  const line = event.target.closest('.version');
  if (line) trigger('choose', {version: line.dataset.version});
});
watch('value', draw);
draw();
