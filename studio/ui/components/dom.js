// Stands in front of every component's own script. What people wrote becomes text here, and nothing else.

function make(tag, name, words, role) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (words != null) made.textContent = words;
  if (role) made.setAttribute('role', role);
  return made;
}

function makeButton(name, words) {
  const button = make('button', name, words);
  button.type = 'button';
  return button;
}

function makeImage(address) {
  const image = make('img');
  image.src = address;
  image.alt = '';
  return image;
}

// Words that are there already are left alone, for they would be read aloud again; a place without words takes no room.
function write(place, words) {
  if (place.textContent !== (words || '')) place.textContent = words || '';
  place.hidden = !words;
}

// Draws the value now, and again whenever it has changed, or what `part` takes of it.
function drawChanges(draw, part = (value) => value) {
  let drawn = null;
  const compare = () => {
    const value = props.value || {}, now = JSON.stringify(part(value));
    if (now === drawn) return;
    drawn = now;
    draw(value);
  };
  watch('value', compare);
  compare();
}

// What is drawn anew takes the keyboard's place with it: where an element bears the same `data-<key>`, the control in it
// of the same kind is given the focus, and returned.
function keepFocus(root, key, redraw) {
  const held = root.contains(document.activeElement) ? document.activeElement : null;
  const bearer = held?.closest(`[data-${key}]`);
  redraw();
  if (!bearer) return null;
  const {action} = held.dataset;
  const again = root.querySelector(`[data-${key}="${CSS.escape(bearer.dataset[key])}"]` + (held === bearer ? ''
    : ' ' + held.localName + (action ? `[data-action="${CSS.escape(action)}"]` : '')));
  again?.focus();
  return again;
}
