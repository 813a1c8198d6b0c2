const root = element.querySelector('.compared');
const STATES = {waiting: 'waiting', running: 'being made', complete: '', failed: 'failed'};

function heads(names) {
  const row = make('tr', '', null, 'row');
  for (const name of names) {
    const head = make('th', '', name, 'columnheader');
    head.scope = 'col';
    row.append(head);
  }
  return row;
}

// On a narrow screen each row is a small sheet, and every figure carries the name of its column.
function figure(words, label) {
  const cell = make('td', 'figures', words, 'cell');
  cell.dataset.label = label;
  return cell;
}

function method(row) {
  const head = make('th', '', null, 'rowheader');
  head.scope = 'row';
  const name = make('div', 'compared-method');
  name.append(make('i', 'mark mark-' + (row.shape % 8)), make('span', '', row.title));
  head.append(name);
  return head;
}

const SPEEDS = ['denoising', 'whole run'];

function summary(data) {
  const names = ['method', 'clips', 'denoising', 'whole run', 'computed', ...data.heads];
  const table = root.querySelector('.compared-summary table');
  table.tHead.replaceChildren(heads(names));
  table.tBodies[0].replaceChildren(...(data.summary || []).map((line) => {
    const row = make('tr', '', null, 'row');
    row.append(method(line));
    [line.clips, line.denoising, line.whole, line.computed, ...line.scores]
      .forEach((words, index) => row.append(figure(words, names[index + 1])));
    return row;
  }));
}

function clip(row, data, names) {
  const line = make('tr', 'compared-row', null, 'row');
  line.dataset.cell = row.cell;
  line.dataset.state = row.state;
  const head = method(row), name = head.firstElementChild;
  const marks = [STATES[row.state] ?? row.state, ...(row.marks || [])].filter(Boolean);
  if (row.state === 'complete' && !row.reference) {
    const tick = make('input');
    tick.type = 'checkbox';
    tick.checked = (data.picked || []).includes(row.cell);
    tick.disabled = !tick.checked && data.full && data.group === row.group;
    tick.setAttribute('aria-label', 'Show ' + row.title + ' beside its reference');
    name.prepend(tick);
  } else {
    name.prepend(make('span', 'compared-gap'));
  }
  for (const mark of marks) name.append(make('small', '', mark));
  line.append(head);
  if (row.state === 'complete') {
    [row.denoising, row.whole, row.faster, ...row.scores].forEach((words, index) => line.append(figure(words, names[index + 1])));
    line.children[2].title = row.parts || '';
    const last = make('td', 'compared-load', null, 'cell');
    const button = makeButton('small', 'Load');
    button.dataset.load = row.cell;
    button.title = 'Load these settings into the Generate form';
    button.setAttribute('aria-label', 'Load the settings of ' + row.title);
    last.append(button);
    line.append(last);
  } else {
    const rest = make('td', 'compared-note', row.note, 'cell');
    rest.colSpan = names.length;
    line.append(rest);
  }
  const lines = [line];
  if (row.state === 'complete' && row.note) {
    const under = make('tr', 'compared-under', null, 'row');
    const words = make('td', 'compared-note', row.note, 'cell');
    words.colSpan = names.length + 1;
    under.append(words);
    lines.push(under);
  }
  return lines;
}

function draw(data) {
  const groups = data.groups || [];
  write(root.querySelector('.compared-empty'), groups.length ? '' : data.empty);
  root.querySelector('.compared-cells').hidden = groups.length === 0;
  root.querySelector('.compared-summary').hidden = !(data.summary || []).length;
  if (!groups.length) return;
  summary(data);
  keepFocus(root, 'cell', () => cells(data, groups));
}

function cells(data, groups) {
  const names = ['method', ...SPEEDS, 'speed-up', ...data.heads];
  const table = root.querySelector('.compared-cells table');
  table.tHead.replaceChildren(heads([...names, '']));
  for (const body of [...table.tBodies]) body.remove();
  for (const group of groups) {
    const body = make('tbody', '', null, 'rowgroup');
    const title = make('tr', 'compared-group', null, 'row');
    const cell = make('th', '', null, 'rowheader');
    cell.colSpan = names.length + 1;
    cell.scope = 'rowgroup';
    cell.append(make('span', '', group.title), make('small', '', group.line));
    title.append(cell);
    body.append(title);
    const rows = group.rows.map((row) => ({...row, group: group.number}));
    body.append(...rows.flatMap((row) => clip(row, {...data, full: (data.picked || []).length >= data.most}, names)));
    table.append(body);
  }
}

root.addEventListener('change', (event) => {
  const line = event.target.closest('[data-cell]');
  if (event.target.type === 'checkbox' && line) trigger('pick', {cell: Number(line.dataset.cell), on: event.target.checked});
});
root.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-load]');
  if (button) trigger('restore', {cell: Number(button.dataset.load)});
});
drawChanges(draw);
