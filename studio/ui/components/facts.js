const root = element.querySelector('.facts');
const say = (selector, words) => {
  const spot = root.querySelector(selector);
  spot.textContent = words || '';
  spot.hidden = !words;
};

function draw() {
  const data = props.value || {};
  const rows = data.rows || [];
  root.hidden = !data.title && !rows.length && !data.note;
  say('.facts-title', data.title);
  say('.facts-note', data.note);
  root.querySelector('.facts-rows').replaceChildren(...rows.map((row) => {
    const pair = document.createElement('div');
    const name = document.createElement('dt');
    const value = document.createElement('dd');
    name.textContent = row.name;
    value.textContent = row.value;
    value.className = row.strong ? 'figures strong' : 'figures';
    pair.append(name, value);
    return pair;
  }));
  root.querySelector('.facts-notes').replaceChildren(...(data.notes || []).map((words) => {
    const item = document.createElement('li');
    item.textContent = words;
    return item;
  }));
}

watch('value', draw);
draw();
