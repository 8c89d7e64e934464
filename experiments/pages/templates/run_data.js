const NO_COMMUNITY = -1;

// The embedded data of one run as features that know their layer, and edges that know their features.
function readRun(data) {
  const looks = new Map(data.communities.map((one, rank) => [one.number, {...one, rank, colour: one.colour ?? "var(--smaller)"}]));
  const none = {colour: "var(--none)", hollow: false, rank: Infinity};
  const layers = data.layers.map((layer, layerIndex) => {
    const isConstant = (index) => layer.constant && index === 0;
    const largest = largestOf(layer.importance.filter((_, index) => !isConstant(index)));
    const nodes = layer.labels.map((label, index) => ({
      layer: layerIndex, layerName: layer.name, index, label: label || String(index), importance: layer.importance[index],
      community: layer.communities[index], look: looks.get(layer.communities[index]) ?? none, constant: isConstant(index),
      examples: layer.examples[index - layer.first] ?? null, principal: layer.principal[index] ?? [], degree: 0, visible: true,
      moved: layer.moved?.[index] ?? null, unsure: Boolean(layer.unsure?.[index]), together: layer.unsure?.[index] ?? [],
      size: Math.min(1, Math.max(0, 1 + Math.log10(layer.importance[index] / largest) / 6)) || 0,
    }));
    return {name: layer.name, short: layer.short, index: layerIndex, nodes, constant: layer.constant,
            described: nodes.filter((node) => node.examples)};
  });
  const pairs = data.pairs.map((pair, index) => {
    const edges = (list, constant) => list.strengths.map((strength, i) => ({
      source: layers[index].nodes[list.sources[i]], target: layers[index + 1].nodes[list.targets[i]], strength, constant,
      mean: list.means?.[i], slope: list.slopes?.[i],
    }));
    const variable = edges(pair.edges, false);
    return {total: pair.total, asked: pair.shown, shown: Math.min(pair.shown, variable.length), edges: variable,
            constantEdges: edges(pair.constantEdges, true), largest: variable.length ? variable[0].strength : 1,
            input: pair.input, averaged: pair.averaged, from: layers[index].name, to: layers[index + 1].name};
  });
  const byName = new Map(layers.map((layer) => [layer.name, layer]));
  return {data, layers, pairs, looks, nodes: layers.flatMap((layer) => layer.nodes), signed: pairs.some((pair) => pair.averaged),
          find: (name, index) => byName.get(name)?.nodes[index] ?? null};
}

// The edge's mean attribution as a share of the magnitudes of all that its target gets; null where nothing is known of it.
function shareOf(run, edge) {
  const total = run.pairs[edge.source.layer].input?.[edge.target.index];
  return edge.mean === undefined ? null : total > 0 ? edge.mean / total : 0;
}

// Features whose label holds the query, or which it names by (part of) a layer's name and an index.
function searched(nodes, query) {
  const wanted = query.trim().toLowerCase();
  if (!wanted) return [];
  const [, layerText, index] = wanted.match(/^(.+)\s+(\d+)$/) ?? [];
  return nodes.filter((node) => node.label.toLowerCase().includes(wanted)
    || (index !== undefined && node.index === Number(index) && node.layerName.toLowerCase().includes(layerText)));
}

const swatch = (node) => {
  const made = element("span", {className: "swatch", title: node.look.number === undefined ? "no community" : `community ${node.look.number}`});
  made.style.borderColor = node.look.colour;
  made.style.background = node.look.hollow ? "none" : node.look.colour;
  return made;
};
