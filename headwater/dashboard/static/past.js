// Months of window results: chosen by device, measurement, aggregate and span, read from this node's own history.
"use strict";

const HOUR_MS = 3_600_000;
const PAST_EVERY_MS = 30_000;
const past = { series: [], asked: 0 };

function choose(id, options) {
  const box = element(id);
  const value = box.value;
  const same = box.options.length === options.length && options.every(([key], index) => box.options[index].value === key);
  if (!same) box.replaceChildren(...options.map(([key, text]) => new Option(text, key)));
  box.value = options.some(([key]) => key === value) ? value : (options[0]?.[0] ?? "");
  return box.value;
}

function unique(names) {
  return [...new Set(names)].map((name) => [name, name]);
}

// rules that compute the same are told apart by their names
function choosePast() {
  const device = choose("past-device", unique(past.series.map((one) => one.device)));
  const mine = past.series.filter((one) => one.device === device);
  const field = choose("past-field", unique(mine.map((one) => one.field)));
  const here = mine.filter((one) => one.field === field);
  const pairs = new Map();
  for (const one of here) for (const name of one.aggregates) pairs.set(`${one.rule}|${name}`, `${name} (${one.rule})`);
  const preferred = [...pairs].sort((a, b) => rank(a[0]) - rank(b[0]) || a[1].localeCompare(b[1]));
  const chosen = choose("past-aggregate", preferred);
  const [rule, aggregate] = chosen.split("|");
  const newest = Math.max(0, ...here.filter((one) => one.rule === rule).map((one) => one.newest_ms));
  return { device, field, rule, aggregate, newest };
}

function rank(key) {
  return { mean: 0, circular_mean: 1 }[key.split("|")[1]] ?? 2;
}

// the right edge is now; a recording, or a device that fell silent long ago, has a time of its own
function pastSpan(newest) {
  const span = Number(element("past-span").value) * HOUR_MS;
  const now = nodeNow();
  const to = newest && newest < now - span ? newest : Math.max(now, newest);
  return { from: to - span, to };
}

async function drawPast() {
  const asked = ++past.asked;
  const chosen = choosePast();
  if (!chosen.aggregate) return;
  const { from, to } = pastSpan(chosen.newest);
  const { device, rule, field, aggregate } = chosen;
  const query = new URLSearchParams({ device, rule, field, aggregate, from: Math.round(from), to: Math.round(to) });
  const answer = await fetch(`/api/v1/history?${query}`);
  if (!answer.ok || asked !== past.asked) return; // another choice was made meanwhile
  const { points } = await answer.json();
  const box = element("past-chart");
  Plotly.react(box, pastTraces(points, aggregate), layoutOf(`${field}, ${aggregate}`, from, to), { displayModeBar: false, responsive: true });
  box.dataset.points = String(points.length);
  box.dataset.asked = `${field} ${aggregate} ${element("past-span").value}`;
}

function pastTraces(points, aggregate) {
  const steps = { x: [], y: [], low: [], high: [], text: [] };
  let before = null;
  for (const [start, end, value, low, high, readings, complete] of points) {
    if (before !== null && start > before) pushStep(steps, new Date(before), null, null, null, ""); // nothing was there
    const text = `${readings} readings${complete ? "" : ", incomplete"}`;
    for (const time of [start, end]) pushStep(steps, new Date(time), value, low, high, text);
    before = end;
  }
  const colour = COLOURS[0];
  const edge = { type: "scatter", mode: "lines", x: steps.x, line: { width: 0, color: colour }, showlegend: false, hoverinfo: "skip" };
  const band = /mean|median|p50/.test(aggregate) && steps.low.some((value) => value !== null);
  const line = { type: "scatter", mode: "lines", x: steps.x, y: steps.y, text: steps.text, line: { width: 2, color: colour }, hovertemplate: "%{y:.4g} (%{text})<extra></extra>" };
  return band ? [{ ...edge, y: steps.low }, { ...edge, y: steps.high, fill: "tonexty", fillcolor: colour + "2a" }, line] : [line];
}

function pushStep(steps, time, value, low, high, text) {
  steps.x.push(time);
  steps.y.push(value);
  steps.low.push(low);
  steps.high.push(high);
  steps.text.push(text);
}

async function lookPast() {
  const answer = await fetch("/api/v1/history/series");
  if (answer.ok) past.series = (await answer.json()).series;
  element("past").hidden = past.series.length === 0;
  if (!element("past").hidden && !document.hidden) await drawPast();
}

function again() {
  lookPast().catch(() => {}).finally(() => setTimeout(again, past.series.length ? PAST_EVERY_MS : 3000));
}

for (const id of ["past-device", "past-field", "past-aggregate", "past-span"]) element(id).addEventListener("change", drawPast);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPast);
again();
