const root = element.querySelector('.versions');
const table = root.querySelector('table');
const NAMES = ['steps', 'model, dB', 'version, dB', 'gain, dB'];

function row(version, chosen) {
  const line = make('tr', 'version', null, 'row');
  line.dataset.version = version.id;
  line.dataset.state = version.state;
  const head = make('th', '', null, 'rowheader');
  head.scope = 'row';
  const button = makeButton('version-choose');
  button.setAttribute('aria-pressed', String(version.id === chosen));
  const title = make('span', 'version-title', version.title);
  const about = make('span', 'version-line', version.line);
  const marks = make('span', 'version-marks');
  if (version.promoted) marks.append(make('b', 'version-promoted', 'promoted'));
  if (version.state !== 'complete') marks.append(make('span', 'version-state', version.state));
  if (version.worse) marks.append(make('span', 'version-worse', 'worse than the model it came from'));
  button.append(title, about);
  if (marks.childElementCount) button.append(marks);
  head.append(button);
  line.append(head);
  [version.steps, version.base, version.own, version.gain].forEach((words, index) => {
    const cell = make('td', 'figures', words, 'cell');
    cell.dataset.label = NAMES[index];
    line.append(cell);
  });
  return line;
}

function draw(data) {
  const versions = data.versions || [];
  table.hidden = !versions.length;
  write(root.querySelector('.versions-empty'), versions.length ? '' : data.empty);
  keepFocus(table, 'version', () => table.tBodies[0].replaceChildren(...versions.map((version) => row(version, data.chosen))));
}

table.addEventListener('click', (event) => {
  const line = event.target.closest('.version');
  if (line) trigger('choose', {version: line.dataset.version});
});
drawChanges(draw);
