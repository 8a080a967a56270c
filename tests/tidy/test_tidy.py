#!/usr/bin/env python3
"""Each rule of tidy.py finds what it is for in a small tree, and nothing in a clean one."""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lexer  # noqa: E402
import tidy  # noqa: E402

HEADER = "/* A sum. */\nCAIRN_API int cairn_sum(int a, int b);\n"
SOURCE = '#include <cairn/sum.h>\n\nint cairn_sum(int a, int b)\n{\n\treturn a + b;\n}\n'
TEST = '#include <cairn/sum.h>\n\nint main(void)\n{\n\treturn cairn_sum(1, -1);\n}\n'
CLEAN = {
    "include/cairn/sum.h": HEADER,
    "src/api/sum.c": SOURCE,
    "src/meson.build": "files('api/sum.c')\n",
    "tests/sum.c": TEST,
    "tests/meson.build": "executable('sum', 'sum.c')\n",
}


def function(body, name="f"):
    return f"static void {name}(int x)\n{{\n{body}}}\n"


class Rules(unittest.TestCase):
    def found(self, changes):
        """What tidy says of the clean tree with @changes."""
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**CLEAN, **changes}.items():
                os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as f:
                    f.write(text)
            return tidy.findings(root)

    def in_source(self, text):
        return self.found({"src/api/sum.c": SOURCE + text})

    def test_clean(self):
        self.assertEqual(self.found({}), set())

    def test_long_function(self):
        lines = tidy.FUNCTION_LINES_MAX - 3
        self.assertEqual(self.in_source(function("\tx++;\n" * lines)), set())
        self.assertEqual(self.in_source(function("\tx++;\n" * (lines + 1))),
                         {"function-lines src/api/sum.c f 71"})

    def test_nesting(self):
        three = "\tif (x) {\n\t\twhile (x) {\n\t\t\tdo {\n%s\t\t\t} while (x);\n\t\t}\n\t}\n"
        value = "\t\t\t\tx = g((struct s){1, {2}});\n\t\t\t\tint a[] = {1};\n"
        self.assertEqual(self.in_source(function(three % value)), set())
        block = "\t\t\t\tif (x == '{') {\n\t\t\t\t}\n"
        self.assertEqual(self.in_source(function(three % block)),
                         {"nesting src/api/sum.c f 4"})

    def test_sizes(self):
        self.assertEqual(self.in_source("\t" * 12 + "int x;\n"), {"wide-lines src/api/sum.c 1"})
        self.assertEqual(self.in_source("\n" * 800), {"file-lines src/api/sum.c 806"})

    def test_include_direction(self):
        grammar = {"src/core/grammar.h": "", "src/api/y.c": '#include "core/grammar.h"\n',
                   "src/meson.build": "files('api/sum.c', 'api/y.c', 'x.c')\n"}
        for path in ("src/stages/posix/x.c", "src/sys/x.c", "src/base/x.c", "cli/x.c",
                     "tests/conformance/x.c"):
            changes = {**grammar, path: '#include "core/grammar.h"\n', "meson.build": "'x.c'\n"}
            self.assertEqual(self.found(changes), {f"include-direction {path} core/grammar.h"})
        changes = {"src/core/stage_env.h": "", "src/stages/posix/x.c":
                   '#include "core/stage_env.h"\n', "src/meson.build": "'api/sum.c' 'x.c'\n"}
        self.assertEqual(self.found(changes), set())

    def test_programs_may_include_what_is_pure(self):
        pure = {"src/stages/flash/table.h": "", "src/stages/flash/tier.h": "", "src/base/b.h": "",
                "bench/x.c": '#include "base/b.h"\n#include "stages/flash/table.h"\n'
                             '#include "stages/flash/tier.h"\n', "meson.build": "'x.c'\n"}
        self.assertEqual(self.found(pure), {"include-direction bench/x.c stages/flash/tier.h"})

    def test_stages_do_not_know_each_other(self):
        changes = {"src/stages/a/a.h": "", "src/stages/b/b.c": '#include "stages/a/a.h"\n',
                   "src/stages/list.c": '#include "stages/a/a.h"\n', "src/stages/list.h": "",
                   "src/stages/b/c.c": '#include "stages/list.h"\n',
                   "src/meson.build": "'api/sum.c' 'b.c' 'c.c' 'list.c'\n"}
        self.assertEqual(self.found(changes), {"include-direction src/stages/b/b.c stages/a/a.h"})

    def test_banned_calls(self):
        self.assertEqual(self.in_source(function("\tfree(strcpy(a, b));\n")),
                         {"banned-call src/api/sum.c free", "banned-call src/api/sum.c strcpy"})
        fine = "\tsys->free(a);\n\tops.open(a); /* free(a) */\n\tputs_all(\"free(a)\");\n"
        self.assertEqual(self.in_source(function(fine)), set())
        self.assertEqual(self.found({"tests/sum.c": TEST + function("\tfree(0);\n")}), set())

    def test_atomics(self):
        self.assertEqual(self.in_source(function("\t__atomic_load_n(&x, __ATOMIC_RELAXED);\n")),
                         {"atomics src/api/sum.c 1"})

    def test_files_outside_the_build(self):
        self.assertEqual(self.found({"src/api/lost.c": "", "src/api/lost.h": ""}),
                         {"not-built src/api/lost.c lost.c", "not-included src/api/lost.h lost.h"})

    def test_public_functions(self):
        header = "CAIRN_API int cairn_sum(int a, int b);\n"
        self.assertEqual(self.found({"include/cairn/sum.h": header}),
                         {"no-contract include/cairn/sum.h cairn_sum"})
        self.assertEqual(self.found({"tests/sum.c": "#include <cairn/sum.h>\n"}),
                         {"not-tested include/cairn/sum.h cairn_sum"})

    def test_unfinished_words(self):
        self.assertEqual(self.in_source("/* " + "TO" + "DO */\n"),
                         {"unfinished-word src/api/sum.c 1"})

    def test_lexer(self):
        code = lexer.code_of('#define A \\\n{\nchar c = \'"\'; // {\n'
                             'char *s = "\\"{"; /* {\n{ */\n')
        self.assertNotIn("{", code)
        self.assertEqual(code.count("\n"), 5)

    def test_excess_may_only_shrink(self):
        with tempfile.TemporaryDirectory() as root:
            os.makedirs(os.path.join(root, "tests/tidy"))
            list_path = os.path.join(root, "tests/tidy/excess.txt")
            with open(list_path, "w", encoding="utf-8") as f:
                f.write("# why\nnesting src/x.c f 4\n")
            self.assertEqual(tidy.main([root]), 1)
            self.assertEqual(tidy.main(["--shrink", root]), 0)
            with open(list_path, encoding="utf-8") as f:
                self.assertEqual(f.read(), "# why\n")


if __name__ == "__main__":
    unittest.main()
