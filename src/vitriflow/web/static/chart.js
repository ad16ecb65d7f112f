// What all charts share: colours of the style sheet, sizes that follow the page's type, tooltips
// made of elements (never of text taken as HTML).

import { colour, rem } from "./core.js";

const charts = new Set();

export function makeChart(box, option) {
  const chart = window.echarts.init(box, null, { renderer: "canvas" });
  charts.add({ chart, box, option });
  chart.setOption(option());
  new ResizeObserver(() => {
    chart.resize();
    chart.setOption(option());
  }).observe(box);
  return chart;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const { chart, option } of charts) chart.setOption(option());
});

export function text(scale = 0.78) {
  return { color: colour("muted"), fontSize: Math.round(rem() * scale), fontFamily: colour("font") };
}

export function axis(extra = {}) {
  return {
    axisLine: { show: false },
    axisTick: { show: false },
    axisLabel: { ...text(), hideOverlap: true },
    splitLine: { lineStyle: { color: colour("line"), width: 1 } },
    nameTextStyle: text(),
    ...extra,
  };
}

export function tooltip(extra = {}) {
  return {
    confine: true,
    backgroundColor: colour("raised"),
    borderColor: colour("line"),
    textStyle: { ...text(0.85), color: colour("text") },
    extraCssText: "box-shadow: 0 4px 18px rgb(0 0 0 / 35%)",
    transitionDuration: 0,
    ...extra,
  };
}

export function animation() {
  return { animation: false };
}
