/**
 * The page's style sheet: light, dark (as the reader's system asks) and paper from one set of variables,
 * which the plots use as well. Contrast of every text on its ground is 4.5 or more (WCAG AA), of every mark
 * 3 or more; a test computes it.
 */

/** Names without their dashes. `c`: contestants, `p`: parts of a whole. */
export const LIGHT: Readonly<Record<string, string>> = {
  paper: '#ffffff',
  raised: '#f4f5f7',
  ink: '#1b1f27',
  muted: '#59606e',
  line: '#dfe2e7',
  good: '#0b6e4f',
  bad: '#b3261e',
  link: '#1a56c4',
  outer: '#dfe2e7',
  added: '#f6c79b',
  inner: '#b9d3f5',
  flag: '#fdf1d6',
  c0: '#4b5563',
  c1: '#1f5fbf',
  c2: '#c2410c',
  c3: '#0b7a5c',
  c4: '#8b2fa8',
  c5: '#9a6700',
  c6: '#b5175f',
  c7: '#0e7490',
  p0: '#c2410c',
  p1: '#1f5fbf',
  p2: '#0b7a5c',
  p3: '#8b2fa8',
};

export const DARK: Readonly<Record<string, string>> = {
  paper: '#14171d',
  raised: '#1d2129',
  ink: '#e6e8ec',
  muted: '#a0a7b4',
  line: '#333944',
  good: '#4fd1a1',
  bad: '#ff8a80',
  link: '#8ab4f8',
  outer: '#3a414d',
  added: '#7a4a1c',
  inner: '#24456f',
  flag: '#3b3115',
  c0: '#a3adbd',
  c1: '#6ea8fe',
  c2: '#ff9457',
  c3: '#43cf9f',
  c4: '#d08bf0',
  c5: '#e3b341',
  c6: '#ff7eb6',
  c7: '#4cc9e0',
  p0: '#ff9457',
  p1: '#6ea8fe',
  p2: '#43cf9f',
  p3: '#d08bf0',
};

const variables = (colours: Readonly<Record<string, string>>): string =>
  Object.entries(colours)
    .map(([name, value]) => `--${name}:${value}`)
    .join(';');

export const STYLE = `
:root{color-scheme:light dark;${variables(LIGHT)}}
@media screen and (prefers-color-scheme:dark){:root{${variables(DARK)}}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;overflow-wrap:anywhere}
main,header,footer{max-width:808px;margin:0 auto;padding:0 24px}
header{padding-top:40px}
h1{font-size:2rem;line-height:1.2;margin:0 0 .4rem;letter-spacing:-.015em}
h2{font-size:1.4rem;margin:3.2rem 0 .4rem;padding-top:1.2rem;border-top:1px solid var(--line);letter-spacing:-.01em}
h3{font-size:1.02rem;margin:0}
p{margin:.3rem 0 .8rem}
a{color:var(--link)}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
.lead,figcaption p,caption,.level,.intro{color:var(--muted)}
.lead{font-size:1.02rem}
figcaption p,caption,.legend,.intro{font-size:.875rem}
section:first-child h2{margin-top:1.6rem}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;padding:0;margin:1rem 0 0;font-size:.9rem}
.flag{background:var(--flag);border-radius:8px;padding:.7rem 1rem;margin:1rem 0}
.flag p,.flag ul{margin:.1rem 0}
.flag ul{padding-left:1.1rem}
figure{margin:1.6rem 0 0}
figcaption p{margin:.1rem 0 .5rem}
.plot svg{display:block;width:100%;height:auto;overflow:visible}
.plot text{font-variant-numeric:tabular-nums}
.narrow{display:none}
.figures{display:grid;grid-template-columns:1fr;gap:.4rem 40px}
.figures .compact .plot{max-width:372px}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1.1rem;padding:0;margin:.2rem 0 .5rem;break-inside:avoid}
.legend li{display:inline-flex;align-items:center;gap:.45rem}
.legend svg{flex:none}
.chip{width:14px;height:14px;border-radius:3px;display:inline-block;border:1px solid var(--muted)}
.chip.outer,.layers .outer{background:var(--outer)}
.chip.added,.layers .added{background:var(--added)}
.chip.inner,.layers .inner{background:var(--inner)}
.packet{margin-top:1rem}
.layers{list-style:none;display:flex;gap:2px;margin:0;padding:0;font-size:.8rem}
.layers li{flex:var(--shares) 1 0;min-width:0;padding:.55rem .15rem;text-align:center;line-height:1.25;overflow-wrap:normal;overflow:hidden;text-overflow:ellipsis}
.layers li:first-child{border-radius:6px 0 0 6px}
.layers li:last-child{border-radius:0 6px 6px 0}
.layers .name,.layers .bytes{display:block}
.layers .bytes{font-weight:600;font-variant-numeric:tabular-nums;font-size:.95rem}
.scroll{overflow-x:auto;margin:.6rem 0 1rem}
.scroll tbody th{min-width:8.6rem}
table{border-collapse:collapse;width:100%;overflow-wrap:break-word;font-size:.875rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:0 0 .5rem}
th,td{text-align:left;vertical-align:baseline;padding:.42rem .7rem .42rem 0;border-bottom:1px solid var(--line)}
th:last-child,td:last-child{padding-right:0}
th{font-weight:600}
thead th{color:var(--muted);font-weight:500}
td.n,th.n{text-align:right}
td.n{white-space:nowrap}
.rounds span,.rounds mark{display:inline-block;margin-right:.5em;white-space:nowrap}
mark{background:none;color:inherit;border:1.5px solid currentColor;border-radius:4px;padding:0 .25em}
.facts th{width:11rem;font-weight:500;color:var(--muted)}
.board{margin-top:1rem}
.board,.facts,.paths{overflow-wrap:anywhere}
.board th,.board td{min-width:3.6rem}
.board th[scope=row]{min-width:8.6rem}
.paths th[scope=row],.paths td:nth-child(2){min-width:7rem}
.board .value{display:block;font-weight:600}
.change{font-size:.8rem}
.board .change{white-space:nowrap}
.numbers .change,.numbers .level{white-space:nowrap}
.good{color:var(--good)}.bad{color:var(--bad)}.faint{color:var(--muted)}
.unseen{background:var(--raised);border-radius:8px;padding:.8rem 1rem;margin:1.4rem 0;font-size:.9rem}
.unseen ul{margin:.3rem 0 0;padding-left:1.1rem}
details{margin:.35rem 0}
summary{cursor:pointer;color:var(--link);font-size:.9rem}
code{font:.82rem/1.5 ui-monospace,"Cascadia Mono",Menlo,"DejaVu Sans Mono",monospace}
pre{overflow-x:auto;background:var(--raised);border-radius:8px;padding:.8rem 1rem;margin:.6rem 0}
.hex{display:block;white-space:normal;min-width:18rem;max-width:26rem}
footer{margin-top:3rem;padding-top:1rem;padding-bottom:3rem;color:var(--muted);font-size:.875rem}
@media screen and (max-width:760px){
.layers{flex-direction:column}
.layers li{display:flex;justify-content:space-between;padding:.3rem .8rem;min-height:calc(var(--shares)*1.6px + 12px);align-items:center;overflow-wrap:anywhere}
.layers li:first-child{border-radius:6px 6px 0 0}.layers li:last-child{border-radius:0 0 6px 6px}
}
@media (min-width:780px){.figures.pairs{grid-template-columns:1fr 1fr}}
@media (max-width:640px){
main,header,footer{padding:0 16px}
header{padding-top:24px}
h1{font-size:1.6rem}
.wide{display:none}.narrow{display:block}
.figures .compact .plot{max-width:none}
.board thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.board,.board tbody,.board tr,.board th,.board td,.board caption{display:block}
.board tr{background:var(--raised);border-radius:8px;padding:.7rem .9rem;margin:.6rem 0}
.board th,.board td,.board th[scope=row]{border:0;padding:.1rem 0;min-width:0}
.board td{display:grid;grid-template-columns:minmax(0,1fr) 3.4rem 5.2rem;gap:0 .5rem;align-items:baseline}
.board td::before{content:attr(data-label);color:var(--muted);font-size:.8rem;line-height:1.3}
.board .value,.board .change{text-align:right}
.board .none{display:none}
.facts th{width:38%}
}
@media print{
@page{margin:14mm 12mm}
body{font-size:10.5pt}
main,header,footer{max-width:none;padding:0}
header{padding-top:0}
nav,.download{display:none}
.wide{display:block}.narrow{display:none}
.figures.pairs{grid-template-columns:1fr 1fr}
figure,.board tr,.unseen li{break-inside:avoid}
h2,h3,figcaption,.intro,.legend,summary{break-after:avoid}
.figures:not(.pairs){display:block}
.numbers tr{break-inside:avoid}
.numbers th,.numbers td{padding-top:.1rem;padding-bottom:.1rem}
.numbers tbody th{min-width:0;white-space:nowrap}
h2{margin-top:1.6rem}
details::details-content{content-visibility:visible;height:auto;display:block}
.unseen details::details-content{display:none}
.hex{display:none}
summary{color:var(--ink);font-weight:600;list-style:none}
summary::-webkit-details-marker{display:none}
.scroll{overflow:visible}
.numbers table,.numbers td,.numbers th{font-size:7.5pt}
pre{white-space:pre-wrap;font-size:8pt}
.chip,.layers li,.unseen,.flag{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
`;
