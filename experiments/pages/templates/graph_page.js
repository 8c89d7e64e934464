/* graph.html: one graph, a panel for the features chosen. */

const run = readRun(JSON.parse(byId("page-data").textContent));
const startCounts = run.pairs.map((pair) => pair.shown);

const counts = {start: null, problem: (value) => (value === null
  || (Array.isArray(value) && value.length === run.pairs.length && value.every((one) => Number.isInteger(one) && one >= 0))
  ? null : `is no list of ${run.pairs.length} numbers of edges`)};
const store = viewStore(document.title, {
  pins: featureList(run), groups: groupList(run), links: oneOf("both", "in", "out"), find: anyText(), counts,
  order: oneOf("importance", "community"), colour: oneOf("community", "sign"),
  connected: yesNo(run.pairs.some((pair) => pair.shown)), constant: yesNo(false), fit: yesNo(true),
  panel: oneOf("auto", "open", "closed"), theme: oneOf("auto", "light", "dark"),
}, showView, say);

const {isSame, isPinned, pin, release} = pinning(store, addressOf);
const pinAll = (nodes) => store.set({pins: [...nodes.map(addressOf), ...store.view.pins.filter((place) => !nodes.some((node) => isSame(place, node)))]});
const pinnedNodes = () => store.view.pins.map((one) => run.find(...one));
const currentCounts = () => store.view.counts ?? startCounts;

const view = new GraphView(byId("graph-view"), run, {
  pin: (node) => (isPinned(node) ? release(node) : pin(node)),
  point: () => { if (!store.view.pins.length) showPanel(); },
  count: (index, count) => store.set({counts: currentCounts().map((one, other) => (other === index ? count : one))}),
});

/* ---- panel ---- */

function follow(node) {
  pin(node);
  view.reveal(node);
  node.group.focus({preventScroll: true});
}

function cardOf(node, isPinnedCard) {
  const drawn = new Set([node.layer - 1, node.layer].flatMap((index) => run.pairs[index]?.drawn ?? []));
  const buttons = isPinnedCard ? [actionButton("×", `Release ${node.layerName} ${node.index}`, () => release(node))] : [];
  const link = byId("other-page") && node.examples ? [element("a", {className: "features-link", textContent: "On a page of its own",
    href: `${byId("other-page").dataset.page}#at=${encodeURIComponent(JSON.stringify(addressOf(node)))}`})] : [];
  return featureCard(run, node, {buttons,
    before: [...link, ...edgeTables(run, node, store.view.links,
      {follow, isDrawn: (edge) => drawn.has(edge), withConstant: store.view.constant})]});
}

function showPanel() {
  const pinned = pinnedNodes(), shown = pinned.length ? pinned : view.pointed ? [view.pointed] : [];
  fillPanel(store, pinned, shown, cardOf, {handle: "Features, groups, help",
    hint: "Hover over a feature, or move to one with Tab and the arrow keys, to see what it is and what it interacts " +
      "with. Click or Enter pins it; several can be pinned. Escape releases them."});
}

function showGroups() {
  byId("groups").replaceChildren(...groupsSection(run, store.view.groups, {nodes: pinnedNodes, go: follow, pin: pinAll,
    change: (groups) => store.set({groups}), mark: (nodes) => view.mark(nodes)}));
}

/* ---- the view ---- */

const asked = run.pairs.filter((pair) => pair.shown > 0);
const largestMultiple = Math.max(1, ...asked.map((pair) => pair.edges.length / pair.shown));
const smallestMultiple = 1 / Math.max(1, ...startCounts);

function showTotals() {
  const drawn = view.counts.reduce((sum, count) => sum + count, 0);
  const kept = run.pairs.reduce((sum, pair) => sum + pair.edges.length, 0);
  const multiple = Math.exp(byId("multiple").value);
  byId("edge-total").value = `× ${Number(multiple.toPrecision(2))}: ${grouped(drawn)} of ${grouped(kept)} drawn`;
  byId("edge-total").dataset.drawn = drawn;
}

function showView(shown, changed, isFromAddress) {
  showControls(shown);
  for (const [key, id] of [["constant", "show-constant"], ["fit", "fit-height"]]) byId(id).checked = shown[key];
  const matches = searched(run.nodes, shown.find);
  byId("match-count").value = shown.find.trim() ? `${grouped(matches.length)} found` : "";
  const {order, connected, constant, fit, links, colour} = shown;
  view.show({settings: {order, connected, constant, fit, links, colour}, counts: shown.counts ?? startCounts,
    pins: pinnedNodes(), matches, isSearching: shown.find.trim() !== ""});
  if (shown.counts === null) byId("multiple").value = 0;
  showTotals();
  showPanel();
  if (changed.has("groups") || changed.has("pins") || !byId("groups").childElementCount) showGroups();
  if (changed.has("pins")) byId("spoken").textContent = `Pinned: ${pinnedNodes().map((node) => node.label).join(", ") || "none"}`;
  if (isFromAddress && shown.pins.length) view.reveal(pinnedNodes()[0]);
}

function listen() {
  const multiple = byId("multiple");
  Object.assign(multiple, {min: Math.log(smallestMultiple), max: Math.log(largestMultiple), disabled: !asked.length});
  multiple.value = 0;
  multiple.addEventListener("input", () => store.set({counts: startCounts.map((count, index) =>
    Math.min(run.pairs[index].edges.length, Math.round(count * Math.exp(multiple.value))))}));
  byId("reset").addEventListener("click", () => store.set({counts: null}));
  for (const [key, id] of [["constant", "show-constant"], ["fit", "fit-height"]])
    byId(id).addEventListener("change", (event) => store.set({[key]: event.target.checked}));
  listenToControls(store, (query) => {
    const [first] = searched(run.nodes, query);
    if (first) { pin(first); view.reveal(first); }
  }, () => view.refresh());
  byId("other-page")?.addEventListener("click", (event) => { event.target.href = event.target.dataset.page + store.flush(); });
}

byId("communities").append(communityLegend(view, run));
run.pairs.forEach((pair) => {
  const line = element("li", {textContent: `${pair.from} → ${pair.to}: ${grouped(pair.asked)} drawn at first; the page holds the ` +
    `strongest ${grouped(pair.edges.length)} of ${grouped(pair.total)}`});
  line.dataset.layer = pair.from;
  byId("kept").append(line);
});
byId("colour").disabled = !run.signed;
showHelp(run);
listen();
viewTools(store, "graph-view.json");
store.readAddress();
