/* The graph: features as SVG groups that can be focused, edges on one canvas, those of the chosen features on another. */

class GraphView {
  // `on`: {pin(node), point(node), count(pairIndex, count)}: what the reader does; the page answers through `show`.
  constructor(host, run, on, {short = false} = {}) {
    this.run = run;
    this.prefersShort = short;
    this.on = on;
    this.settings = {order: "importance", connected: run.pairs.some((pair) => pair.shown), constant: false, fit: true,
                     links: "both", colour: "community"};
    this.counts = run.pairs.map((pair) => pair.shown);
    this.pins = new Set();
    this.matches = new Set();
    this.isSearching = false;
    this.pointed = null;
    this.linked = new Set(); // features lit because of something chosen elsewhere, such as in another graph
    this.marked = null; // features lit for as long as something outside the graph is pointed at
    this.lit = [];
    this.size = {width: 0, height: 0};
    this.scroll = element("div", {className: "scroll"});
    this.heads = element("div", {className: "heads"});
    this.graph = element("div", {className: "graph"});
    this.edges = element("canvas", {className: "edges"});
    this.highlight = element("canvas", {className: "highlight"});
    this.nodes = svg("svg", {class: "nodes", role: "group",
      "aria-label": `${run.data.title}: features by node layer; arrow keys move, Enter pins and releases, Escape releases all`});
    for (const canvas of [this.edges, this.highlight]) canvas.setAttribute("aria-hidden", "true");
    this.graph.append(this.edges, this.highlight, this.nodes);
    this.scroll.append(this.heads, this.graph);
    host.append(this.scroll);
    run.layers.forEach((layer) => this.buildColumn(layer));
    run.pairs.forEach((pair, index) => this.buildPairHead(pair, index));
    this.listen();
    new ResizeObserver(() => requestAnimationFrame(() => { if (this.room() !== this.laidOutIn) this.refresh(); })).observe(this.scroll);
  }

  /* ---- building ---- */

  buildColumn(layer) {
    layer.text = element("span");
    layer.head = element("div", {className: "layer-head"}, [element("div", {textContent: layer.name, title: layer.name}), layer.text]);
    this.heads.append(layer.head);
    const column = document.createDocumentFragment();
    for (const node of layer.nodes) {
      const ring = node.look.hollow;
      const style = `fill:${ring ? "var(--page)" : node.look.colour}` + (ring ? `;stroke:${node.look.colour}` : "");
      node.group = svg("g", {class: `node${node.constant ? " constant" : ""}${node.unsure ? " unsure" : ""}`, "data-layer": layer.name, "data-feature": node.index,
        role: "button", tabindex: -1, "aria-pressed": false, "aria-label": `${layer.name} ${node.index}: ${node.label}`});
      node.rect = svg("rect", {});
      node.circle = svg("circle", {cx: RADIUS, style});
      node.group.append(node.rect, node.circle);
      node.group.node = node;
      column.append(node.group);
    }
    this.nodes.append(column);
  }

  buildPairHead(pair, index) {
    pair.slider = named(element("input", {type: "range", min: 0, max: 1000, step: "any", disabled: !pair.edges.length}),
      `Edges drawn from ${pair.from} to ${pair.to}`);
    pair.text = element("span");
    pair.head = element("div", {className: "pair-head"}, [pair.slider, pair.text]);
    pair.head.dataset.layer = pair.from;
    pair.slider.addEventListener("input", () => this.on.count(index, this.countAt(pair)));
    this.heads.append(pair.head);
  }

  countAt(pair) { return Math.round((pair.edges.length + 1) ** (pair.slider.value / 1000) - 1); }

  // A label's element, made only where it is seen: thousands of features have none.
  labelOf(node) {
    if (!node.text) {
      node.text = svg("text", {dy: "0.34em"});
      node.group.append(node.text);
    }
    const layer = this.run.layers[node.layer], tight = this.isTight(node);
    const leftwards = tight && node.layer === this.run.layers.length - 1;
    node.text.textContent = shortened(node, tight ? 110 : layer.labelRoom);
    node.text.style.fontSize = tight ? "" : `${Math.min(10, layer.pitch - 1.4)}px`; // rows that are close have smaller letters
    node.text.setAttribute("x", leftwards ? -5 : LABEL_START);
    node.text.setAttribute("text-anchor", leftwards ? "end" : "start");
  }

  room() { return `${this.scroll.clientWidth} × ${this.scroll.clientHeight}`; }

  // Whether there is little room, so that names are short and columns close.
  isShort() { return this.prefersShort || this.scroll.clientWidth < 620; }

  isTight(node) { return (node.constant ? PITCH : this.run.layers[node.layer].pitch) < LEGIBLE_PITCH; }

  /* ---- what is shown ---- */

  // New settings, counts, pins, matches, as far as they are given.
  show({settings, counts, pins, matches, isSearching}) {
    if (settings) this.settings = settings;
    if (counts) this.counts = counts.map((count, index) => Math.max(0, Math.min(this.run.pairs[index].edges.length, count)));
    if (pins) {
      for (const node of this.pins) node.group.setAttribute("aria-pressed", "false");
      this.pins = new Set(pins);
      for (const node of pins) node.group.setAttribute("aria-pressed", "true");
    }
    if (matches) {
      for (const node of this.matches) node.group.classList.remove("match");
      this.matches = new Set(matches);
      for (const node of matches) node.group.classList.add("match");
      this.isSearching = isSearching;
    }
    this.refresh();
  }

  link(nodes) {
    for (const node of this.linked) node.group.classList.remove("linked");
    this.linked = new Set(nodes);
    for (const node of nodes) node.group.classList.add("linked");
    this.refresh();
  }

  mark(nodes) { this.marked = nodes; this.lightUp(); }

  drawnEdges(pair, count) {
    const variable = pair.edges.slice(0, count);
    if (!this.settings.constant || !variable.length) return variable;
    const weakest = variable[variable.length - 1].strength;
    return variable.concat(pair.constantEdges.filter((edge) => edge.strength >= weakest));
  }

  refresh() {
    const {run, settings} = this;
    for (const node of run.nodes) node.degree = 0;
    run.pairs.forEach((pair, index) => {
      pair.drawn = this.drawnEdges(pair, this.counts[index]);
      for (const edge of pair.drawn) { edge.source.degree += 1; edge.target.degree += 1; }
    });
    for (const node of run.nodes) {
      const chosen = this.pins.has(node) || this.linked.has(node) || this.matches.has(node);
      node.visible = node.constant ? settings.constant || this.pins.has(node) || this.linked.has(node) : !settings.connected || node.degree > 0 || chosen;
    }
    this.laidOutIn = this.room();
    const short = this.isShort();
    for (const layer of run.layers) layer.head.firstChild.textContent = headOf(layer, short);
    this.size = layOut(run.layers, {...settings, short}, this.scroll.clientWidth, this.scroll.clientHeight);
    this.place();
    this.requestDraw();
    this.lightUp();
  }

  place() {
    const {run, size} = this;
    run.layers.forEach((layer, index) => {
      for (const node of layer.nodes) this.placeNode(node, layer);
      if (!layer.column.includes(layer.tabStop)) this.setTabStop(layer, layer.column[0]);
      this.placeHeads(layer, index);
    });
    run.pairs.forEach((pair, index) => {
      const short = this.isShort();
      pair.text.textContent = `${grouped(this.counts[index])} / ${grouped(pair.edges.length)}${short ? "" : " edges"}`;
      pair.head.dataset.drawn = this.counts[index];
      // Written only where it says something else, or small steps of the keyboard would be rounded away.
      if (this.countAt(pair) !== this.counts[index])
        pair.slider.value = 1000 * Math.log(this.counts[index] + 1) / Math.log(pair.edges.length + 1);
    });
    this.heads.style.width = this.graph.style.width = `${size.width}px`;
    this.graph.style.height = `${size.height}px`;
    this.nodes.setAttribute("width", size.width);
    this.nodes.setAttribute("height", size.height);
  }

  placeNode(node, layer) {
    if (node.isHidden !== !node.visible) {
      node.isHidden = !node.visible;
      node.group.toggleAttribute("hidden", node.isHidden);
    }
    if (!node.visible) return;
    const rowHeight = node.constant ? PITCH : layer.pitch, tight = rowHeight < LEGIBLE_PITCH;
    const key = [layer.x, node.y, rowHeight, layer.width, layer.labelRoom].join();
    if (node.placed === key) return;
    node.placed = key;
    node.group.setAttribute("transform", `translate(${layer.x} ${node.y})`);
    node.rect.setAttribute("width", layer.width);
    node.rect.setAttribute("height", rowHeight);
    node.rect.setAttribute("y", -rowHeight / 2);
    const scale = Math.max(0.25, Math.min(1, rowHeight / PITCH));
    const radius = scale * RADIUS * Math.sqrt(0.09 + 0.91 * node.size), ring = node.look.hollow ? Math.min(2, radius) : 0;
    node.circle.setAttribute("r", radius - ring / 2);
    if (ring) node.circle.style.strokeWidth = ring;
    node.group.classList.toggle("tight", tight);
    if (!tight && !node.line) {
      node.line = svg("line", {x1: RADIUS});
      node.circle.before(node.line);
    }
    node.line?.setAttribute("x2", layer.width);
    if (!tight || node.text) this.labelOf(node);
  }

  placeHeads(layer, index) {
    const {layers, pairs} = this.run, gap = this.size.gap, last = index === layers.length - 1;
    const inset = gap / 2 - 8; // names may reach halfway into the gaps on either side
    layer.head.style.left = `${index ? layer.x - inset : layer.x}px`;
    layer.head.style.width = `${layer.width + inset * (Number(index > 0) + Number(!last))}px`;
    layer.text.textContent = `${grouped(layer.column.length)} / ${grouped(layer.nodes.length)}`;
    layer.head.style.textAlign = index === 0 ? "left" : last ? "right" : "center";
    if (last || !pairs[index]) return;
    pairs[index].head.style.left = `${layer.x + layer.width + 8}px`;
    pairs[index].head.style.width = `${gap - 16}px`;
  }

  /* ---- drawing ---- */

  requestDraw() {
    if (this.drawRequested) return;
    this.drawRequested = true;
    requestAnimationFrame(() => {
      this.drawRequested = false;
      this.paint(this.edges, this.run.pairs.map((pair) => pair.drawn), 0.75);
    });
  }

  colourOf(edge) {
    if (this.settings.colour === "sign" && edge.slope !== undefined) return edge.slope > 0 ? "var(--high)" : "var(--low)";
    const joins = edge.source.community === edge.target.community && edge.source.look.number !== undefined;
    return joins ? edge.source.look.colour : "var(--edge)";
  }

  paint(canvas, edgesByPair, opacity) { paintEdges(canvas, this.size, this.run, edgesByPair, opacity, (edge) => this.colourOf(edge)); }

  lightUp() {
    const {pins, pointed, settings} = this;
    const chosen = new Set(pointed ? [...pins, pointed] : pins);
    const core = this.marked ? new Set(this.marked) : chosen.size || this.linked.size ? new Set([...chosen, ...this.linked]) : this.matches;
    for (const node of this.lit) node.group.classList.remove("lit", "core");
    const isBright = (edge) => (settings.links !== "in" && core.has(edge.source)) || (settings.links !== "out" && core.has(edge.target));
    const brightEdges = core.size ? this.run.pairs.map((pair) => pair.drawn.filter(isBright)) : [];
    const bright = new Set(core);
    for (const edges of brightEdges) for (const edge of edges) bright.add(edge.source).add(edge.target);
    this.lit = [...bright];
    for (const node of this.lit) node.group.classList.add("lit");
    for (const node of [...chosen, ...this.linked, ...this.matches]) if (!node.text) this.labelOf(node);
    for (const node of chosen) node.group.classList.add("core", "lit");
    this.lit.push(...chosen);
    this.graph.classList.toggle("focused", core.size > 0 || this.isSearching);
    this.highlight.hidden = core.size === 0;
    if (core.size) this.paint(this.highlight, brightEdges, 0.8);
  }

  /* ---- what the reader does ---- */

  setTabStop(layer, node) {
    layer.tabStop?.group.setAttribute("tabindex", "-1");
    node?.group.setAttribute("tabindex", "0");
    layer.tabStop = node;
  }

  neighbour(node, key) {
    const {layers} = this.run, column = layers[node.layer].column;
    if (key === "ArrowUp" || key === "ArrowDown") return column[column.indexOf(node) + (key === "ArrowUp" ? -1 : 1)];
    const beside = layers[node.layer + (key === "ArrowLeft" ? -1 : 1)]?.column ?? [];
    return beside.reduce((best, other) => (Math.abs(other.y - node.y) < Math.abs(best.y - node.y) ? other : best), beside[0]);
  }

  point(node) {
    if (node === this.pointed) return;
    this.pointed = node;
    this.lightUp();
    this.on.point(node);
  }

  reveal(node) { node.group.scrollIntoView({block: "center", inline: "nearest"}); }

  listen() {
    const nodeOf = (event) => event.target.closest(".node")?.node ?? null;
    this.nodes.addEventListener("mouseover", (event) => this.point(nodeOf(event)));
    this.nodes.addEventListener("mouseleave", () => this.point(null));
    this.nodes.addEventListener("focusin", (event) => {
      const node = nodeOf(event);
      this.setTabStop(this.run.layers[node.layer], node);
      this.point(node);
    });
    this.nodes.addEventListener("focusout", () => this.point(null));
    this.nodes.addEventListener("click", (event) => { const node = nodeOf(event); if (node) this.on.pin(node); });
    this.nodes.addEventListener("keydown", (event) => {
      const node = nodeOf(event);
      if (event.key === "Enter" || event.key === " ") this.on.pin(node);
      else if (event.key.startsWith("Arrow")) this.neighbour(node, event.key)?.group.focus();
      else return;
      event.preventDefault();
    });
  }
}
