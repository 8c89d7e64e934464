/* What a feature responds to: images or texts, as sections of {id, title, open, body}. */

function exampleSections(run, node) {
  const found = node.examples;
  if (!found) return [];
  if (found.map) return [mapSection(node)];
  return found.strip !== undefined ? imageSections(run, found) : tokenSections(run, found);
}

const quantileName = (quantile) => `${digits(100 * quantile)} % of its activations are lower`;

/* ---- images ---- */

const THUMBNAIL = 56;

function thumbnail(picture, title, css) {
  const image = named(element("div", {className: "picture", title}), title);
  image.setAttribute("role", "img");
  Object.assign(image.style, {aspectRatio: picture.aspect, ...css});
  return image;
}

function framed(image, box) {
  if (box) {
    const [left, top, width, height] = box.map((share) => `${share}%`);
    image.append(element("div", {className: "position"}));
    Object.assign(image.lastChild.style, {left, top, width, height});
  }
  return image;
}

const withValue = (image, value) => element("figure", {}, [image, element("figcaption", {textContent: digits(value, 3)})]);

function fromStrip(picture, index, title) {
  const count = picture.highest.length + picture.lowest.length + Number(picture.direction);
  return thumbnail(picture, title, {backgroundImage: `url("${picture.strip}")`, backgroundSize: `${THUMBNAIL * count}px 100%`,
    backgroundPosition: `${-THUMBNAIL * index}px 0`});
}

function fromSheet({sheet, columns, rows, aspect}, number, title) {
  const height = THUMBNAIL / aspect;
  return thumbnail({aspect}, title, {backgroundImage: `url("${sheet}")`,
    backgroundSize: `${THUMBNAIL * columns}px ${height * rows}px`,
    backgroundPosition: `${-THUMBNAIL * (number % columns)}px ${-height * Math.floor(number / columns)}px`});
}

const mapOf = (node) => element("img", {className: "map", src: node.examples.map, alt: `Map of the activation of ${node.label} on all pairs`});

const mapSection = (node) => ({id: "map", title: "Activation on all pairs", open: true, body: element("div", {}, [mapOf(node),
  element("p", {className: "quiet", textContent: "First number down, second across, at the position where the feature varies most; orange above zero, blue below."})])});

function imageSections(run, picture) {
  const end = (name, first) => element("div", {className: "pictures"}, picture[name].map(({caption, value, box}, index) =>
    withValue(framed(fromStrip(picture, first + index, `${caption}: ${digits(value)}`), box), value)));
  const quantiles = picture.quantiles.map((examples, i) => element("div", {className: "example-group"}, [
    element("h4", {textContent: quantileName(run.data.quantiles[i])}),
    element("div", {className: "pictures"}, examples.map(({caption, value, box, number}) =>
      withValue(framed(fromSheet(run.data.images, number, `${caption}: ${digits(value)}`), box), value)))]));
  return [
    ...(picture.highest.length ? [{id: "highest", title: "Highest activation", open: true, body: end("highest", 0)}] : []),
    ...(picture.lowest.length ? [{id: "lowest", title: "Lowest activation", open: true, body: end("lowest", picture.highest.length)}] : []),
    ...(quantiles.length ? [{id: "quantiles", title: "In between, by quantile", open: false, body: element("div", {}, quantiles)}] : []),
  ];
}

function directionImage(node) {
  const picture = node.examples;
  if (!picture?.direction) return [];
  const image = fromStrip(picture, picture.highest.length + picture.lowest.length, "The feature itself, as an image");
  image.classList.add("direction");
  return [image];
}

/* ---- texts ---- */

const MARKS = {" ": "·", "\n": "↵", "\t": "→"};
const UNSEEN = /[\p{C}\p{Z}]/u;

// Text as nodes in which every character can be seen and none can act on its surroundings.
function visible(text) {
  if (!text) return [element("span", {className: "mark", textContent: "∅"})];
  const nodes = /^\p{M}/u.test(text) ? ["◌"] : [];
  for (const character of text) {
    const mark = MARKS[character] ?? (UNSEEN.test(character) ? `\\u{${character.codePointAt(0).toString(16)}}` : null);
    nodes.push(mark === null ? character : element("span", {className: "mark", textContent: mark}));
  }
  return nodes;
}

const tokenOf = (run, index) => element("span", {className: "token", dir: "ltr"}, visible(run.data.tokens.texts[index]));

const scaleOf = (found, tokens) => Math.max(Math.abs(found.lowest), Math.abs(found.highest)) / tokens.shades;

function shadedToken(run, index, shade, value) {
  const made = tokenOf(run, index);
  made.title = digits(value);
  made.style.setProperty("--shade", shade >= 0 ? "var(--high)" : "var(--low)");
  made.style.setProperty("--amount", `${(72 * Math.abs(shade)) / run.data.tokens.shades}%`);
  return made;
}

function context(run, found, place) {
  const {sequences, before} = run.data.tokens, scale = scaleOf(found, run.data.tokens);
  const sequence = sequences[place.sequence], start = Math.max(0, place.position - before);
  const line = element("div");
  if (start > 0) line.append("…");
  place.shades.forEach((shade, i) => {
    const isPeak = start + i === place.position;
    const made = shadedToken(run, sequence[start + i], shade, isPeak ? place.value : Number((shade * scale).toPrecision(3)));
    made.classList.toggle("peak", isPeak);
    line.append(made, element("wbr"));
  });
  if (start + place.shades.length < sequence.length) line.append("…");
  const value = element("span", {className: "value", textContent: digits(place.value),
    title: `sequence ${place.sequence}, token ${place.position}`});
  return element("li", {className: "context"}, [value, line]);
}

const contextList = (run, found, places, kind) =>
  element("ol", {className: `contexts shaded ${kind}`}, places.map((place) => context(run, found, place)));

function histogram({histogram: counts, lowest, highest}) {
  const width = 300, height = 165, top = 16, floor = 147;
  const drawn = svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", class: "histogram",
    "aria-label": `Histogram of activations from ${digits(lowest)} to ${digits(highest)}`});
  const most = Math.max(...counts), bin = width / counts.length, step = (highest - lowest) / counts.length;
  counts.forEach((count, i) => {
    const tall = count ? Math.max(2, ((floor - top) * Math.log(1 + count)) / Math.log(1 + most)) : 0;
    const from = lowest + i * step;
    const bar = svg("rect", {x: i * bin + 0.5, y: floor - tall, width: bin - 1, height: tall});
    bar.style.fill = from + step / 2 >= 0 ? "var(--high)" : "var(--low)";
    bar.dataset.count = count;
    bar.append(svg("title", {}, `${digits(from)} to ${digits(from + step)}: ${grouped(count)}`));
    drawn.append(bar);
  });
  drawn.append(svg("line", {x1: 0, x2: width, y1: floor, y2: floor}));
  drawn.append(svg("text", {x: 0, y: height - 5}, digits(lowest)));
  drawn.append(svg("text", {x: width, y: height - 5, "text-anchor": "end"}, digits(highest)));
  const zero = (-lowest / (highest - lowest)) * width;
  if (zero > 0 && zero < width) drawn.append(svg("line", {x1: zero, x2: zero, y1: floor, y2: floor + 5}));
  if (zero > 60 && zero < width - 60) drawn.append(svg("text", {x: zero, y: height - 5, "text-anchor": "middle"}, "0"));
  drawn.append(svg("text", {x: width, y: 9, "text-anchor": "end"}, `highest bar: ${grouped(most)} tokens; log scale`));
  return drawn;
}

function effectLists(run, {raised, raisedBy, lowered, loweredBy}) {
  const list = (name, tokens, changes) => element("div", {className: name}, [
    element("p", {textContent: `${name} most`}),
    element("ol", {}, tokens.map((index, i) => element("li", {}, [tokenOf(run, index),
      element("span", {className: "value", textContent: (changes[i] > 0 ? "+" : "") + digits(changes[i])})])))]);
  return element("div", {className: "effects"}, [list("raised", raised, raisedBy), list("lowered", lowered, loweredBy)]);
}

function tokenSections(run, found) {
  const quantiles = found.quantiles.map((places, i) => element("div", {className: "example-group"}, [
    element("h4", {textContent: quantileName(run.data.quantiles[i])}), contextList(run, found, places, "middle")]));
  return [
    {id: "highest", title: "Highest", open: true, body: contextList(run, found, found.top, "top")},
    {id: "lowest", title: "Lowest", open: false, body: contextList(run, found, found.bottom, "bottom")},
    ...(quantiles.length ? [{id: "quantiles", title: "In between, by quantile", open: false, body: element("div", {}, quantiles)}] : []),
    {id: "histogram", title: "Activations", open: false, body: histogram(found)},
    ...(found.effects ? [{id: "effects", title: "Direct effect on the logits", open: false, body: effectLists(run, found.effects)}] : []),
  ];
}
