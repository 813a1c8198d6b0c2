const root = element.querySelector('.facts');

function pair(row) {
  const made = make('div');
  made.append(make('dt', '', row.name), make('dd', row.strong ? 'figures strong' : 'figures', row.value));
  return made;
}

drawChanges((data) => {
  const rows = data.rows || [];
  root.hidden = !data.title && !rows.length && !data.note;
  write(root.querySelector('.facts-title'), data.title);
  write(root.querySelector('.facts-note'), data.note);
  root.querySelector('.facts-rows').replaceChildren(...rows.map(pair));
  root.querySelector('.facts-notes').replaceChildren(...(data.notes || []).map((words) => make('li', '', words)));
});
