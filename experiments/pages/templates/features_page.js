/* features.html: a list to browse, one feature in full beside it. */

const run = readRun(JSON.parse(byId("page-data").textContent));
const described = run.layers.filter((layer) => layer.described.length);
const firstOf = (layer) => addressOf(layer.described.find((node) => !node.constant) ?? layer.described[0]);

const store = viewStore(document.title, {
  at: oneFeature(run, described.length ? firstOf(described[0]) : null), pins: featureList(run), groups: groupList(run),
  group: {start: "", problem: (value) => (typeof value === "string" ? null : "is no group's name")},
  find: anyText(), theme: oneOf("auto", "light", "dark"),
}, showView, say);

const current = () => (store.view.at ? run.find(...store.view.at) : null);
const go = (node) => store.set({at: addressOf(node)});
const {isPinned, pin, release} = pinning(store, addressOf);
const togglePin = (node) => (isPinned(node) ? release(node) : pin(node));

/* ---- the list ---- */

function listed() {
  const {find, group, groups} = store.view, chosen = groups.find((one) => one.name === group);
  const nodes = chosen ? chosen.features.map((one) => run.find(...one)) : find.trim() ? run.nodes : current() ? run.layers[current().layer].described : [];
  return (find.trim() ? searched(nodes, find) : nodes).filter((node) => node.examples && !node.constant);
}

function showList() {
  const {find, group, groups} = store.view, nodes = listed(), isMixed = find.trim() || group;
  byId("group-box").hidden = !groups.length;
  byId("group").replaceChildren(element("option", {value: "", textContent: "any"}),
    ...groups.map((one) => element("option", {value: one.name, textContent: one.name})));
  byId("group").value = group;
  byId("match-count").value = `${grouped(nodes.length)} ${isMixed ? "found" : "described"}`;
  const largest = new Map(run.layers.map((layer) =>
    [layer, largestOf(layer.nodes.filter((node) => !node.constant).map((node) => node.importance))]));
  byId("features").replaceChildren(...nodes.map((node) => {
    const bar = element("span", {className: "bar", title: `importance ${digits(node.importance)}`});
    const share = 1 + Math.log10(node.importance / largest.get(run.layers[node.layer])) / 6;
    bar.style.width = `${100 * Math.min(1, Math.max(0.03, share || 0))}%`;
    const text = isMixed ? `${node.label} · ${node.layerName}` : node.label;
    const link = element("a", {href: `#at=${encodeURIComponent(JSON.stringify(addressOf(node)))}`}, [
      element("span", {className: "number", textContent: node.index}), swatch(node),
      element("span", {className: "name", textContent: text, title: text}), bar]);
    if (node.unsure) link.classList.add("unsure");
    link.node = node;
    link.addEventListener("click", (event) => { event.preventDefault(); go(node); showListBox(false); });
    return element("li", {}, [link]);
  }));
}

function markCurrent() {
  for (const {firstChild: link} of byId("features").children) {
    if (link.node === current()) {
      link.setAttribute("aria-current", "true");
      link.scrollIntoView({block: "nearest"});
    } else link.removeAttribute("aria-current");
  }
}

function showListBox(open) {
  byId("list-box").classList.toggle("closed", !open && isNarrow());
  byId("list-toggle").setAttribute("aria-expanded", open);
}

/* ---- one feature ---- */

function showFeature() {
  const node = current();
  byId("pinned").replaceChildren(...store.view.pins.map((one) => run.find(...one)).map((pinned) =>
    actionButton(pinned.label, `Go to ${pinned.layerName} ${pinned.index}: ${pinned.label}`, () => go(pinned))));
  if (!node) return byId("feature").replaceChildren(element("p", {textContent: "No feature of this run has examples."}));
  const pinButton = actionButton(isPinned(node) ? "Release" : "Pin", `${isPinned(node) ? "Release" : "Pin"} this feature, here and in the graph`,
    () => togglePin(node), "tool");
  pinButton.id = "pin";
  pinButton.setAttribute("aria-pressed", isPinned(node));
  const cardOf = ({id, title, body}) => element("section", {className: `card section-${id}`}, [element("h3", {textContent: title}), body]);
  const edges = edgeTables(run, node, "both", {follow: go});
  const sections = exampleSections(run, node).map(cardOf);
  if (edges.length) sections.splice(2, 0, element("section", {className: "card edges-card"}, edges));
  const facts = factList(run, node), pairs = [...facts.children];
  facts.replaceChildren(...pairs.filter((_, i) => i % 2 === 0).map((term, i) => element("div", {}, [term, pairs[2 * i + 1]])));
  byId("feature").replaceChildren(
    element("div", {className: "title-row"}, [element("h2", {id: "name", textContent: node.label}), pinButton, ...directionImage(node)]),
    facts,
    ...(node.examples ? [] : [element("p", {className: "quiet", textContent: "No examples were collected of this feature."})]),
    element("div", {className: "cards"}, sections));
}

function showView(shown, changed) {
  showTheme(shown.theme);
  if (byId("search").value.trim() !== shown.find.trim()) byId("search").value = shown.find;
  if (current()) byId("layer").value = current().layer;
  showList();
  markCurrent();
  showFeature();
  if (changed.has("at")) document.querySelector("main").scrollTop = 0;
}

function step(key) {
  if (key === "ArrowUp" || key === "ArrowDown") {
    const nodes = listed(), place = nodes.indexOf(current());
    return nodes[place + (key === "ArrowUp" ? -1 : 1)] ?? null;
  }
  const next = described[described.indexOf(run.layers[current().layer]) + (key === "ArrowLeft" ? -1 : 1)];
  return next ? run.find(...firstOf(next)) : null;
}

function listen() {
  document.addEventListener("keydown", (event) => {
    const modified = event.ctrlKey || event.altKey || event.metaKey || event.shiftKey;
    if (!event.key.startsWith("Arrow") || modified || event.target.closest("select, input") || !current()) return;
    const node = step(event.key);
    if (node) go(node);
    event.preventDefault();
  });
  byId("layer").append(...described.map((layer) => element("option", {value: layer.index, textContent: layer.name})));
  byId("layer").addEventListener("change", (event) => store.set({at: firstOf(run.layers[event.target.value]), find: "", group: ""}));
  byId("search").addEventListener("input", (event) => store.set({find: event.target.value}));
  byId("search").addEventListener("keydown", (event) => {
    const [first] = listed();
    if (event.key === "Enter" && first) { go(first); showListBox(false); }
  });
  byId("group").addEventListener("change", (event) => store.set({group: event.target.value}));
  byId("list-toggle").addEventListener("click", () => showListBox(byId("list-box").classList.contains("closed")));
  byId("other-page")?.addEventListener("click", (event) => { event.target.href = event.target.dataset.page + store.flush(); });
}

showHelp(run);
listen();
viewTools(store, "features-view.json");
showListBox(!isNarrow());
store.readAddress();
