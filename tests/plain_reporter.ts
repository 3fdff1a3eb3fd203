/** Prints one plain closing line, `N passed, N failed, N skipped`, and each skipped test with its reason. */
interface Case {
  fullName: string;
  result(): { state: string; note?: string };
}
interface Module {
  children: { allTests(): Iterable<Case> };
}

export default class PlainReporter {
  onTestRunEnd(modules: readonly Module[], errors: readonly unknown[]): void {
    const n: Record<string, number> = { passed: 0, failed: errors.length, skipped: 0 };
    const skipped: string[] = [];
    for (const m of modules) {
      for (const t of m.children.allTests()) {
        const { state, note } = t.result();
        n[state] = (n[state] ?? 0) + 1;
        if (state === "skipped") skipped.push(`skipped: ${t.fullName}${note ? ` (${note})` : ""}`);
      }
    }
    if (skipped.length) console.log(`\n${skipped.join("\n")}`);
    console.log(`\n${n.passed} passed, ${n.failed} failed, ${n.skipped} skipped`);
  }
}
