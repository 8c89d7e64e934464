/* compare.html: two graphs of one model, features of one framed in the other. */

const SHOWN_BESIDE = 2; // counterparts whose activations stand beside a feature's on the same examples

const sides = JSON.parse(byId("page-data").textContent).sides.map(({name, run, matches, page}, index) =>
  ({name, run: readRun(run), matches, page, index}));
for (const side of sides) for (const node of side.run.nodes) node.side = side;
const otherOf = (side) => sides[1 - side.index];

// The other side's features that a feature correlates with, the most first.
const matchesOf = (node) => node.side.matches[node.layer][node.index].map(([index, correlation]) =>
  ({node: otherOf(node.side).run.layers[node.layer].nodes[index], correlation}));

const placeOf = (node) => [node.side.index, node.layerName, node.index];
const nodeAt = ([side, layer, index]) => sides[side].run.find(layer, index);
const pinList = {start: [], problem: (value) => (Array.isArray(value) && value.every((one) => Array.isArray(one) && sides[one[0]])
  ? value.map(([side, ...rest]) => problemOfFeature(sides[side].run, rest)).find((problem) => problem) ?? null
  : "is no list of sides, node layers and features")};
const number = (start, least, most) => ({start, problem: (value) =>
  (typeof value === "number" && value >= least && value <= most ? null : `is no number from ${least} to ${most}`)});

const store = viewStore(document.title, {
  pins: pinList, find: anyText(), least: number(0.5, 0.1, 1), edges: number(0, -4, 6), links: oneOf("both", "in", "out"),
  order: oneOf("importance", "community"), colour: oneOf("community", "sign"),
  connected: yesNo(sides.every((side) => side.run.pairs.some((pair) => pair.shown))),
  panel: oneOf("auto", "open", "closed"), theme: oneOf("auto", "light", "dark"),
}, showView, say);

const {isPinned, pin, release} = pinning(store, placeOf);

for (const side of sides) {
  const host = named(element("section", {className: "graph-view"}, [element("h2", {}, [side.page
    ? element("a", {href: side.page, textContent: side.name, title: "This run's own graph"}) : side.name])]), side.name);
  host.dataset.side = side.index;
  byId("sides").append(host);
  side.view = new GraphView(host, side.run, {
    pin: (node) => (isPinned(node) ? release(node) : pin(node)),
    point: (node) => {
      linkSides(node);
      if (!store.view.pins.length) showPanel(node);
    },
    count: (index, count) => side.view.show({counts: side.view.counts.map((one, other) => (other === index ? count : one))}),
  }, {short: true});
}
for (const side of sides) side.view.scroll.addEventListener("scroll", () => {
  const from = side.view.scroll, to = otherOf(side).view.scroll;
  if (Math.abs(to.scrollLeft - from.scrollLeft) > 1) to.scrollLeft = from.scrollLeft;
});

function linkSides(pointed) {
  const chosen = [...store.view.pins.map(nodeAt), ...(pointed ? [pointed] : [])];
  for (const side of sides) {
    const linked = chosen.filter((node) => node.side !== side).flatMap((node) =>
      matchesOf(node).filter(({correlation}) => Math.abs(correlation) >= store.view.least).map((match) => match.node));
    if (linked.length !== side.view.linked.size || linked.some((node) => !side.view.linked.has(node))) side.view.link(linked);
  }
}

/* ---- panel ---- */

function correlatedTable(node) {
  const other = otherOf(node.side), found = matchesOf(node);
  const rows = found.map(({node: partner, correlation}) => {
    const measure = element("meter", {min: 0, max: 1, value: Math.abs(correlation)});
    measure.setAttribute("aria-hidden", "true");
    const row = element("tr", {className: Math.abs(correlation) >= store.view.least ? "" : "weak"}, [
      element("td", {}, [element("div", {className: "partner"}, [swatch(partner),
        actionButton(`${partner.index} ${partner.label}`, `Pin ${other.name}, ${partner.layerName} ${partner.index}: ${partner.label}`, () => {
          pin(partner);
          other.view.reveal(partner);
        })])]),
      element("td", {}, [element("div", {className: "measure"}, [measure, digits(correlation, 3)])])]);
    Object.assign(row.dataset, {layer: partner.layerName, feature: partner.index});
    return row;
  });
  const caption = element("caption", {textContent: found.length ? `Correlated features of ${other.name}` : `No feature of ${other.name} correlates`});
  return element("table", {className: "correlated"}, [caption, element("tbody", {}, rows)]);
}

function cardOf(node, isPinnedCard) {
  const buttons = isPinnedCard ? [actionButton("×", `Release ${node.side.name}, ${node.layerName} ${node.index}`, () => release(node))] : [];
  const features = [node, ...matchesOf(node).slice(0, SHOWN_BESIDE).map((match) => match.node)].map((one) =>
    ({run: one.side.run, node: one, name: one.side.name}));
  const common = commonExamples(features);
  return featureCard(node.side.run, node, {buttons, prefix: `${node.side.name}: `, before: [correlatedTable(node),
    ...(common ? [foldedSection({id: "common", title: "The same examples", open: true, body: common})] : []),
    foldedSection({id: "edges", title: "Edges", open: false, body: element("div", {},
      edgeTables(node.side.run, node, store.view.links, {follow: (partner) => { pin(partner); node.side.view.reveal(partner); }}))})]});
}

function showPanel(pointed) {
  const pinned = store.view.pins.map(nodeAt), shown = pinned.length ? pinned : pointed ? [pointed] : [];
  fillPanel(store, pinned, shown, cardOf, {handle: "Features and help",
    hint: "Hover over a feature, or move to one with Tab and the arrow keys: the other side's features that it correlates " +
      "with are framed. Click or Enter pins it; Escape releases all."});
}

/* ---- the view ---- */

function showView(shown, changed, isFromAddress) {
  showControls(shown);
  byId("least").value = shown.least;
  byId("least-text").value = shown.least.toFixed(2);
  byId("multiple").value = shown.edges;
  byId("edge-total").value = `× ${Number(Math.exp(shown.edges).toPrecision(2))}`;
  let found = 0;
  for (const side of sides) {
    const matches = searched(side.run.nodes, shown.find);
    found += matches.length;
    const counts = side.run.pairs.map((pair) => Math.round(pair.shown * Math.exp(shown.edges)));
    side.view.show({settings: {order: shown.order, connected: shown.connected, constant: false, fit: true, links: shown.links, colour: shown.colour},
      ...(changed.has("edges") ? {counts} : {}), matches, isSearching: shown.find.trim() !== "",
      pins: shown.pins.map(nodeAt).filter((node) => node.side === side)});
  }
  byId("match-count").value = shown.find.trim() ? `${grouped(found)} found` : "";
  linkSides(null);
  showPanel(null);
  if (changed.has("pins"))
    byId("spoken").textContent = `Pinned: ${shown.pins.map(nodeAt).map((node) => `${node.side.name} ${node.label}`).join(", ") || "none"}`;
  if (isFromAddress && shown.pins.length) nodeAt(shown.pins[0]).side.view.reveal(nodeAt(shown.pins[0]));
}

function listen() {
  byId("multiple").addEventListener("input", (event) => store.set({edges: Number(event.target.value)}));
  byId("least").addEventListener("input", (event) => store.set({least: Number(event.target.value)}));
  listenToControls(store, (query) => {
    const [first] = sides.flatMap((side) => searched(side.run.nodes, query));
    if (first) { pin(first); first.side.view.reveal(first); }
  }, () => sides.forEach((side) => side.view.refresh()));
}

byId("colour").disabled = !sides.some((side) => side.run.signed);
showHelp(sides[0].run);
listen();
viewTools(store, "compare-view.json");
store.readAddress();
