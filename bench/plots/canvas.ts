/**
 * Draws with ECharts (Apache) into a text of SVG, without a browser or a DOM: its server-side renderer is a
 * documented part of it, it brings two packages and no native code, and runs on Node 20. (Vega-Lite asks for
 * Node 22; Observable Plot needs a DOM.) Whoever imports this file loads it, 5 MB: only the report does.
 *
 * Colours are CSS variables of the page, so that one drawing serves light, dark and paper.
 */
import { BarChart, CustomChart, LineChart } from 'echarts/charts';
import { GridComponent } from 'echarts/components';
import { type EChartsCoreOption, init, use } from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';

use([BarChart, LineChart, CustomChart, GridComponent, SVGRenderer]);

export const INK = 'var(--ink)';
export const MUTED = 'var(--muted)';
export const GRID = 'var(--line)';
export const PAPER = 'var(--paper)';

/** As wide as the page's text on a desk, and as a phone. A page has both and shows the one that fits. */
export const WIDE_PX = 760;
export const NARROW_PX = 340;

export interface Size {
  readonly widthPx: number;
  readonly heightPx: number;
}

export const FONT_PX = 12.5;

export const TEXT = { fontFamily: 'inherit', fontSize: FONT_PX, color: INK } as const;
export const FAINT_TEXT = { ...TEXT, color: MUTED } as const;
/** Of text that stands over lines of the grid: they pass behind it. */
export const HALO = { stroke: PAPER, lineWidth: 4, lineJoin: 'round' } as const;

/** What every drawing starts from; nothing moves and nothing answers to a pointer. */
const BASE: EChartsCoreOption = { animation: false, textStyle: TEXT };

/** @returns an `<svg>` element that scales with its place, without identifiers, styles or scripts */
export function draw(option: EChartsCoreOption, { widthPx, heightPx }: Size): string {
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: widthPx, height: heightPx });
  try {
    chart.setOption({ ...BASE, ...option });
    return bare(chart.renderToSVGString({ useViewBox: true }));
  } finally {
    chart.dispose();
  }
}

/**
 * Takes off what only an interactive chart needs: classes and identifiers (of clips, which nothing here reaches)
 * that several drawings of a page would share, and marks for scripts. Text in the drawing has its quotes and brackets escaped, so no text looks like these.
 */
function bare(svg: string): string {
  return svg
    .replace(/<defs\b[^>]*>[\s\S]*?<\/defs>/g, '')
    .replace(/<style\b[^>]*>[\s\S]*?<\/style>/g, '')
    .replace(
      / (?:class|clip-path|ecmeta_[a-z_]+|pointer-events|xmlns(?::xlink)?|version|baseProfile)="[^"]*"/g,
      '',
    )
    .replace(/ xml:space="preserve"/g, '')
    .replace(/(<svg) width="[^"]*" height="[^"]*"/, '$1')
    .replace(/<rect [^>]*fill="none"><\/rect>\n?/, '')
    .replaceAll('\n', '');
}
