// The parts of the help that speak of what this run has.
function showHelp(run) {
  const {tokens} = run.data;
  for (const part of document.querySelectorAll(".of-images")) part.hidden = !run.nodes.some((node) => node.examples?.strip);
  for (const part of document.querySelectorAll(".of-tokens")) part.hidden = !tokens;
  if (byId("searched") && tokens)
    byId("searched").textContent = `${grouped(tokens.sequences.length)} sequences of ${grouped(tokens.sequences[0].length)} tokens`;
  if (byId("sign-meaning")) byId("sign-meaning").hidden = !run.signed;
  if (byId("averaged")) byId("averaged").textContent = [...new Set(run.pairs.map((pair) => pair.averaged ?? 0))].map(grouped).join(" or ");
}
