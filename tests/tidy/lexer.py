"""Just enough of C's grammar to measure functions: blanked comments and strings, tokens, braces."""

import re

TOKEN = re.compile(r"[A-Za-z_]\w*|\d[\w.]*|->|\S")
TEXT = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)


def blank(match):
    """Spaces in place of a comment or of what a literal holds; lines stay lines."""
    text = match.group(0)
    if text[0] in "\"'":
        return text[0] + " " * (len(text) - 2) + text[0]
    return re.sub(r"[^\n]", " ", text)


def code_of(text):
    """The text without comments, literals' contents and preprocessor lines."""
    return mask_directives(TEXT.sub(blank, text))


def mask_directives(text):
    """Preprocessor lines made empty, continued ones whole."""
    lines = text.split("\n")
    inside = False
    for i, line in enumerate(lines):
        if inside or line.lstrip().startswith("#"):
            inside = line.endswith("\\")
            lines[i] = ""
    return "\n".join(lines)


class Function:
    def __init__(self, name, first, last, depth):
        self.name, self.first, self.last, self.depth = name, first, last, depth

    @property
    def lines(self):
        return self.last - self.first + 1



def tokens_of(code):
    """(token, line) of all the code."""
    out, line, at = [], 1, 0
    for match in TOKEN.finditer(code):
        line += code.count("\n", at, match.start())
        at = match.start()
        out.append((match.group(0), line))
    return out


def opener(tokens, close):
    """The index of the parenthesis that tokens[close] closes, or -1."""
    depth = 0
    for i in range(close, -1, -1):
        if tokens[i][0] == ")":
            depth += 1
        elif tokens[i][0] == "(":
            depth -= 1
            if depth == 0:
                return i
    return -1


def is_name(token):
    return re.fullmatch(r"[A-Za-z_]\w*", token) is not None


def is_block(tokens, i):
    """Whether tokens[i], a brace inside a function, opens statements and not an initialiser."""
    before = tokens[i - 1][0]
    if before in ("else", "do", ";", "{", "}", ":"):
        return True
    if before != ")":
        return False
    at = opener(tokens, i - 1)
    word = tokens[at - 1][0] if at > 0 else ""
    return is_name(word) and word not in ("return", "sizeof")


def function_name(tokens, i):
    """The name of the function whose body tokens[i] opens at file scope, or None."""
    if i == 0 or tokens[i - 1][0] != ")":
        return None
    at = opener(tokens, i - 1)
    while at > 1 and tokens[at - 1][0] == ")":  # attributes, returned function pointers
        at = opener(tokens, at - 1)
    word = tokens[at - 1][0] if at > 0 else ""
    return word if is_name(word) else None


def declaration_start(tokens, i):
    """The first token of what ends at tokens[i]."""
    while i > 0 and tokens[i - 1][0] not in (";", "}", "{"):
        i -= 1
    return i


def body_end(tokens, i):
    """The closing brace of the body that tokens[i] opens, and the deepest nesting in it."""
    stack, depth, deepest = [False], 0, 0
    for j in range(i + 1, len(tokens)):
        if tokens[j][0] == "{":
            counts = is_block(tokens, j)
            stack.append(counts)
            depth += counts
            deepest = max(deepest, depth)
        elif tokens[j][0] == "}":
            depth -= stack.pop()
            if not stack:
                return j, deepest
    return len(tokens) - 1, deepest


def functions_of(code):
    """Every function that is defined, from its first line of declaration to its last brace."""
    tokens = tokens_of(code)
    out, i = [], 0
    while i < len(tokens):
        if tokens[i][0] == "{":
            name = function_name(tokens, i)
            linkage = i >= 2 and tokens[i - 2][0] == "extern"
            if name and not linkage:
                first = tokens[declaration_start(tokens, i)][1]
                end, depth = body_end(tokens, i)
                out.append(Function(name, first, tokens[end][1], depth))
                i = end
            elif not linkage:
                i, _ = body_end(tokens, i)
        i += 1
    return out
