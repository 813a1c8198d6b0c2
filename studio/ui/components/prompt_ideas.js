const root = element.querySelector('.ideas');

drawChanges(({prompts = []}) => {
  root.hidden = !prompts.length;
  root.querySelectorAll('button').forEach((button) => button.remove());
  prompts.forEach((prompt, index) => {
    const button = makeButton('', prompt);
    button.title = prompt;
    button.dataset.index = index;
    root.append(button);
  });
});

root.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) trigger('idea', {index: Number(button.dataset.index)});
});
