const root = element.querySelector('.figure-table');
const table = root.querySelector('table');

function heads(columns) {
  const row = make('tr', '', null, 'row');
  for (const {title, hint} of [{title: 'method'}, ...columns]) {
    const head = make('th', '', title, 'columnheader');
    head.scope = 'col';
    if (hint) head.title = hint;
    row.append(head);
  }
  return row;
}

// On a narrow screen each row is a small sheet, and every figure carries the name of its column.
function drawRow(row, data) {
  const line = make('tr', 'compared-row', null, 'row');
  line.dataset.key = row.key;
  line.dataset.state = row.state;
  const head = make('th', '', null, 'rowheader');
  head.scope = 'row';
  const name = make('div', 'compared-method');
  if (row.may_be_picked) {
    const tick = make('input');
    tick.type = 'checkbox';
    tick.checked = (data.picked || []).includes(row.key);
    tick.disabled = !tick.checked && (data.picked || []).length >= data.most;
    tick.setAttribute('aria-label', 'Show ' + row.title + ' in the player');
    name.append(tick);
  }
  name.append(make('i', 'mark mark-' + (row.shape % 8)), make('span', '', row.title), ...row.marks.map((mark) => make('small', '', mark)));
  head.append(name);
  line.append(head);
  row.cells.forEach((words, index) => {
    const cell = make('td', 'figures', words, 'cell');
    cell.dataset.label = data.columns[index].title;
    line.append(cell);
  });
  if (!row.note) return [line];
  const under = make('tr', 'compared-under', null, 'row');
  const words = make('td', 'compared-note', row.note, 'cell');
  words.colSpan = data.columns.length + 1;
  under.append(words);
  return [line, under];
}

function drawGroup(group, data) {
  const body = make('tbody', '', null, 'rowgroup');
  if (group.title) {
    const line = make('tr', 'compared-group', null, 'row');
    const head = make('th', '', null, 'rowheader');
    head.colSpan = data.columns.length + 1;
    head.scope = 'rowgroup';
    head.append(make('span', '', group.title), make('small', '', group.line));
    line.append(head);
    body.append(line);
  }
  body.append(...group.rows.flatMap((row) => drawRow(row, data)));
  return body;
}

drawChanges((data) => {
  const groups = data.groups || [];
  root.hidden = !groups.length;
  write(root.querySelector('.figure-title'), data.title);
  write(root.querySelector('.compared-hint'), data.hint);
  root.querySelector('.figure-notes').replaceChildren(...(data.notes || []).map((words) => make('li', '', words)));
  keepFocus(root, 'key', () => {
    table.tHead.replaceChildren(heads(data.columns || []));
    for (const body of [...table.tBodies]) body.remove();
    table.append(...groups.map((group) => drawGroup(group, data)));
  });
});

root.addEventListener('change', (event) => {
  const line = event.target.closest('[data-key]');
  if (event.target.type === 'checkbox' && line) trigger('pick', {key: line.dataset.key, on: event.target.checked});
});
