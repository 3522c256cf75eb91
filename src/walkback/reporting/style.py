"""The style of a page: one column on narrow screens, two on wide ones; light and dark."""

STYLE = """
:root{--ground:#fbfbf9;--card:#fff;--ink:#1b1c1f;--quiet:#63666d;--rule:#dfe0dc;
--c0:#1f5fbf;--c1:#c2410c;--c2:#15803d;--c3:#7e22ce;--c4:#a16207;--c5:#0e7490}
@media (prefers-color-scheme:dark){:root{--ground:#15171a;--card:#1d2024;--ink:#e8e8e4;--quiet:#9ba0a8;--rule:#343941;
--c0:#7db0ff;--c1:#ff9a62;--c2:#69d68d;--c3:#cf9bff;--c4:#e6c15c;--c5:#5fd0e6}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
main{max-width:72rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:0}
h2{font-size:1.2rem;margin:2.2rem 0 .8rem;padding-top:.8rem;border-top:1px solid var(--rule)}
h3{font-size:.95rem;font-weight:600;margin:.2rem 0}
header p,figcaption,small,figure p{color:var(--quiet);font-size:.85rem;margin:.3rem 0}
small{display:block;font-weight:400}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.7rem;margin:1.2rem 0}
dl div{background:var(--card);border:1px solid var(--rule);border-radius:.5rem;padding:.6rem .8rem}
dt{color:var(--quiet);font-size:.8rem}
dd{margin:0;font-size:1.15rem;font-weight:600;font-variant-numeric:tabular-nums}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(28rem,100%),1fr));gap:1rem;align-items:start;grid-auto-flow:dense}
.grid2>*{min-width:0}
.grid3{display:grid;grid-template-columns:repeat(auto-fill,minmax(14rem,1fr));gap:1rem;align-items:start}
figure{margin:0}
figure img{width:100%;max-width:44rem;height:auto;display:block;background:#fff}
figure.pixels img{image-rendering:pixelated}
.grid2>figure.across{grid-column:1/-1}
figure.across img{max-width:100%}
.figures{margin:1rem 0}
svg{width:100%;height:auto;display:block;background:var(--card);border-radius:.4rem}
svg svg{background:none}
svg text{fill:var(--quiet);font:12px system-ui,sans-serif}
.grid{stroke:var(--rule);stroke-width:1}
.line{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round}
.band{fill:var(--c);opacity:.18}
.dots{fill:var(--c)}
.key{margin-right:1rem;white-space:nowrap}
.key::before{content:"";display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:50%;background:var(--c)}
.line0{--c:var(--c0)}.line1{--c:var(--c1)}.line2{--c:var(--c2)}.line3{--c:var(--c3)}.line4{--c:var(--c4)}.line5{--c:var(--c5)}
.wide{overflow-x:auto;overflow-wrap:break-word}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--quiet);font-weight:500}
th,td{padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--rule);vertical-align:top;min-width:5rem}
td:last-child,th:last-child{padding-right:0}
@media (max-width:40rem){
.figures table,.figures tbody{display:block}
.figures tr{display:grid;grid-template-columns:1fr auto auto;column-gap:.8rem}
.figures tr{border-bottom:1px solid var(--rule);padding:.35rem 0}
.figures th:nth-child(4){display:none}
.figures th,.figures td{border:0;padding:0;min-width:0}
.figures td:nth-child(4){grid-column:1/-1;color:var(--quiet);font-size:.8rem}
svg text{font-size:14px}
figure.across{overflow-x:auto}
figure.across img{width:44rem;max-width:none}
}
details{margin:.4rem 0}
summary{cursor:pointer;padding:.25rem 0}
@media print{details>*{display:block}section{break-inside:avoid}}
"""
