"""What ``attend`` did, in words."""

from dataclasses import dataclass

from whatwhere.gates import Start
from whatwhere.surgery.deferred import Last
from whatwhere.surgery.places import Site, Skipped


@dataclass(frozen=True)
class Report:
    """What ``attend`` did; print it."""

    gate: str
    start: Start
    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]
    parameters_added: int
    fused: dict[str, Last]

    def __str__(self) -> str:
        width = max(len(site.name) for site in self.sites)
        kinds = ", ".join(dict.fromkeys(site.kind for site in self.sites))
        count = f"{len(self.sites)} site{'' if len(self.sites) == 1 else 's'} ({kinds})"
        lines = [
            f"{self.gate} (start={self.start}) at {count}, "
            f"{self.parameters_added:,} parameters added"
        ]
        for site in self.sites:
            size = "×".join(str(length) for length in site.resolution)
            line = f"  {site.name:<{width}}  {site.channels:>5} channels  {size}"
            if site.argument is not None:
                line += f"  before it, on argument {site.argument!r}"
            if site.runs > 1:
                line += f"  runs {site.runs} times"
            if site.name in self.fused:
                line += "  fused with add" + (", relu" if self.fused[site.name] == "relu" else "")
            lines.append(line + (f"  ({site.note})" if site.note else ""))
        lines += [f"  skipped {each.name}: {each.reason}" for each in self.skipped]
        return "\n".join(lines)
