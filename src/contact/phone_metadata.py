#!/usr/bin/env python3
"""Write contact_phone_data.c: the phone numbering plans, as tables.

    phone_metadata.py DIRECTORY > contact_phone_data.c

DIRECTORY holds the npm package libphonenumber-js (npm install libphonenumber-js):
its metadata.max.json has the patterns of Google's libphonenumber as compact
JSON, and its CHANGELOG.md names the release they are of.  For developers; a
build never runs this.  The output depends on the input alone.

Patterns are regular expressions over digits: classes, groups, alternatives and
bounded repeats, so each denotes a finite set.  Where only "does the whole
number match?" is asked, they become one acyclic automaton whose equal states
are shared by all countries.  Prefixes to be cut off (IDD, national) depend on
the order of alternatives and on groups: they become programs for a small
backtracking matcher, see contact_phone.c.
"""
import json
import os
import re
import sys

ALL = 0x3FF
MAX_LEN = 17

# opcodes of programs, in the upper bits of an instruction
OP_MATCH, OP_DIGIT, OP_SPLIT, OP_JUMP, OP_SAVE, OP_END = range(6)

# ISO 3166 codes of regions without a numbering plan, and CLDR's "unknown"
NO_PLAN = ['AQ', 'BV', 'GS', 'HM', 'PN', 'TF', 'UM', 'ZZ']


class Parser:
    """A pattern as a tree of tuples; groups are numbered as they open."""

    def __init__(self, text):
        self.text, self.at, self.groups = text, 0, 0

    def parse(self):
        tree = self.alternatives()
        assert self.at == len(self.text), self.text
        return tree

    def peek(self):
        return self.text[self.at:self.at + 1]

    def alternatives(self):
        branches = [self.sequence()]
        while self.peek() == '|':
            self.at += 1
            branches.append(self.sequence())
        return ('alt', branches) if len(branches) > 1 else branches[0]

    def sequence(self):
        parts = []
        while self.peek() not in ('', '|', ')'):
            parts.append(self.repeat(self.atom()))
        return ('seq', parts)

    def atom(self):
        c = self.peek()
        self.at += 1
        if c == '(':
            group = None
            if self.text.startswith('?:', self.at):
                self.at += 2
            else:
                self.groups += 1
                group = self.groups
            tree = self.alternatives()
            assert self.peek() == ')', self.text
            self.at += 1
            return tree if group is None else ('group', group, tree)
        if c == '[':
            end = self.text.index(']', self.at)
            mask = self.char_class(self.text[self.at:end])
            self.at = end + 1
            return ('digit', mask)
        if c == '\\':
            assert self.peek() == 'd', self.text
            self.at += 1
            return ('digit', ALL)
        if c == '$':
            return ('end',)
        assert c.isdigit(), (self.text, c)
        return ('digit', 1 << int(c))

    def char_class(self, s):
        if s.startswith('^'):
            return ALL & ~self.char_class(s[1:])
        mask = 0
        for low, high in re.findall(r'(\d)(?:-(\d))?', s.replace('\\d', '0-9')):
            for d in range(int(low), int(high or low) + 1):
                mask |= 1 << d
        return mask

    def repeat(self, tree):
        c = self.peek()
        if c == '?':
            self.at += 1
            return ('repeat', tree, 0, 1)
        if c == '{':
            m = re.match(r'\{(\d+)(?:,(\d+))?\}', self.text[self.at:])
            self.at += m.end()
            return ('repeat', tree, int(m[1]), int(m[2] or m[1]))
        assert c not in ('*', '+'), self.text
        return tree


def compile_program(pattern):
    """(instructions, number of groups) for the matcher."""
    parser = Parser(pattern)
    out = []

    def emit(op, arg=0):
        assert arg < 1 << 12
        out.append((op, arg))
        return len(out) - 1

    def patch(at):
        assert len(out) - at < 1 << 12
        out[at] = (out[at][0], len(out) - at)

    def gen(tree):
        kind = tree[0]
        if kind == 'seq':
            for part in tree[1]:
                gen(part)
        elif kind == 'digit':
            emit(OP_DIGIT, tree[1])
        elif kind == 'end':
            emit(OP_END)
        elif kind == 'group':
            emit(OP_SAVE, 2 * tree[1])
            gen(tree[2])
            emit(OP_SAVE, 2 * tree[1] + 1)
        elif kind == 'repeat':
            for _ in range(tree[2]):
                gen(tree[1])
            splits = []
            for _ in range(tree[3] - tree[2]):
                splits.append(emit(OP_SPLIT))
                gen(tree[1])
            for at in splits:
                patch(at)
        else:
            jumps = []
            for branch in tree[1][:-1]:
                at = emit(OP_SPLIT)
                gen(branch)
                jumps.append(emit(OP_JUMP))
                patch(at)
            gen(tree[1][-1])
            for at in jumps:
                patch(at)

    gen(parser.parse())
    emit(OP_MATCH)
    return [op << 12 | arg for op, arg in out], parser.groups


class Nfa:
    """The states of all patterns; a set of them is what is left to match."""

    def __init__(self):
        self.edges = []         # (mask, target) or None
        self.empty = []         # targets without input
        self.cache = {}
        self.final = self.state()

    def state(self):
        self.edges.append(None)
        self.empty.append([])
        return len(self.edges) - 1

    def build(self, tree, after):
        """Entry state of tree, which goes on to the state after."""
        kind = tree[0]
        if kind == 'digit':
            s = self.state()
            self.edges[s] = (tree[1], after)
            return s
        if kind == 'seq':
            for part in reversed(tree[1]):
                after = self.build(part, after)
            return after
        if kind == 'group':
            return self.build(tree[2], after)
        if kind == 'alt':
            s = self.state()
            self.empty[s] = [self.build(b, after) for b in tree[1]]
            return s
        assert kind == 'repeat'
        end = after
        for i in range(tree[3] - tree[2]):
            s = self.state()
            self.empty[s] = [self.build(tree[1], after), end]
            after = s
        for i in range(tree[2]):
            after = self.build(tree[1], after)
        return after

    def closure(self, states):
        seen, todo = set(), list(states)
        while todo:
            s = todo.pop()
            if s not in seen:
                seen.add(s)
                todo += self.empty[s]
        return frozenset(s for s in seen if s == self.final or self.edges[s])

    def start(self, pattern):
        if pattern not in self.cache:
            self.cache[pattern] = self.closure([self.build(Parser(pattern).parse(), self.final)])
        return self.cache[pattern]

    def step(self, states, digit):
        key = (states, digit)
        if key not in self.cache:
            self.cache[key] = self.closure([self.edges[s][1] for s in states
                                            if self.edges[s] and self.edges[s][0] >> digit & 1])
        return self.cache[key]


class Automaton:
    """Shared acyclic automaton: equal states are one state."""

    def __init__(self):
        self.nodes = {}
        self.list = []

    def node(self, accept, targets):
        edges = {}
        for digit, target in enumerate(targets):
            if target is not None:
                edges[target] = edges.get(target, 0) | 1 << digit
        if not accept and not edges:
            return None
        key = (accept, tuple(sorted((mask, t) for t, mask in edges.items())))
        if key not in self.nodes:
            self.nodes[key] = len(self.list)
            self.list.append(key)
        return self.nodes[key]

    def build(self, start, step, accepts):
        memo = {}

        def visit(state):
            if state is None:
                return None
            if state not in memo:
                memo[state] = self.node(accepts(state), [visit(step(state, d)) for d in range(10)])
            return memo[state]

        return visit(start)


NFA = Nfa()
DFA = Automaton()


def general_automaton(pattern):
    return DFA.build(NFA.start(pattern), lambda s, d: NFA.step(s, d) or None,
                     lambda s: NFA.final in s)


def valid_automaton(regions):
    """
    The valid numbers of a country code.  Its regions are asked in order: one
    with leading digits answers for all that begin with them, another one for
    what fits one of its types.  A state is (length, ((leading, general, types),
    ...)): leading is what is left of the leading digits' pattern, "all" once
    they were found, None where the region has none.
    """
    lengths = [mask(r['lengths']) for r in regions]
    types = [[mask(t[1]) for t in r['types']] for r in regions]

    def start():
        return (0, tuple((NFA.start(r['leading']) if r['leading'] else None, NFA.start(r['general']),
                          tuple(NFA.start(t[0]) for t in r['types'])) for r in regions))

    def step(state, digit):
        length, parts = state
        if length == MAX_LEN:
            return None
        after, alive = [], False
        for leading, general, kinds in parts:
            if leading not in (None, 'all'):
                leading = NFA.step(leading, digit)
                if NFA.final in leading:
                    leading = 'all'
            general = NFA.step(general, digit)
            kinds = tuple(NFA.step(k, digit) if general else frozenset() for k in kinds)
            if leading is not None and not leading:
                general, kinds = frozenset(), tuple(frozenset() for k in kinds)
            alive = alive or any(kinds)
            after.append((leading, general, kinds))
        return (length + 1, tuple(after)) if alive else None

    def accepts(state):
        length, parts = state
        for (leading, general, kinds), fits, fits_type in zip(parts, lengths, types):
            if leading not in (None, 'all'):
                continue
            ok = (fits >> length & 1 and NFA.final in general and
                  any(NFA.final in k and t >> length & 1 for k, t in zip(kinds, fits_type)))
            if leading == 'all' or ok:
                return bool(ok)
        return False

    return DFA.build(start(), step, accepts)


def mask(lengths):
    return sum(1 << n for n in set(lengths))


def read_region(code, row):
    row = list(row) + [0] * 14
    kinds = [t for t in (row[11] or []) if t and t[0]] or [[row[2]]]
    return {'code': code, 'calling': int(row[0]), 'idd': row[1] or None, 'general': row[2],
            'lengths': row[3], 'prefix': row[7] or row[5] or None, 'transform': row[8] or None,
            'leading': row[10] or None,
            'types': [(t[0], t[1] if len(t) > 1 else row[3]) for t in kinds]}


def read(directory):
    with open(os.path.join(directory, 'metadata.max.json'), encoding='utf-8') as f:
        data = json.load(f)
    assert data['version'] == 4, data['version']
    with open(os.path.join(directory, 'CHANGELOG.md'), encoding='utf-8') as f:
        version = re.search(r'Updated metadata to version (\d+\.\d+\.\d+)', f.read())[1]
    regions = {c: read_region(c, row) for c, row in data['countries'].items()}
    for calling, row in data['nonGeographic'].items():
        regions['001 ' + calling] = read_region('', row)
    codes = {int(c): list(names) for c, names in data['country_calling_codes'].items()}
    for calling in data['nonGeographic']:
        codes[int(calling)] = ['001 ' + calling]
    return version, regions, codes


class Pool:
    """Sequences one after another in a table; equal ones once."""

    def __init__(self, first):
        self.items, self.places = list(first), {}

    def add(self, sequence):
        key = tuple(sequence)
        if key not in self.places:
            self.places[key] = len(self.items)
            self.items += sequence
        return self.places[key]


def table(name, ctype, values, width=78):
    out, line = ['const %s %s[] = {' % (ctype, name)], '\t'
    for v in values:
        item = '%d,' % v
        if len(line) + 3 + len(item) > width:
            out.append(line)
            line = '\t'
        line += item
    out.append(line.rstrip(','))
    out.append('};')
    return out


def number_states():
    """New numbers: accepting states first; (order, new number of each)."""
    order = sorted(range(len(DFA.list)), key=lambda i: (not DFA.list[i][0], i))
    return order, {old: new for new, old in enumerate(order)}


def main():
    version, regions, codes = read(sys.argv[1])
    programs, transforms = Pool([OP_MATCH << 12]), ['']
    names = sorted(n for n in regions if not n.startswith('001 ')) + \
        sorted(n for n in regions if n.startswith('001 '))
    index = {n: i for i, n in enumerate(names)}

    general = {n: general_automaton(regions[n]['general']) for n in names}
    valid = {c: valid_automaton([regions[n] for n in codes[c]]) for c in sorted(codes)}
    order, number = number_states()
    accepting = sum(1 for key in DFA.list if key[0])

    rows = []
    for n in names:
        r = regions[n]
        idd = programs.add(compile_program(r['idd'])[0]) if r['idd'] else 0
        prefix, groups = 0, 0
        if r['prefix']:
            code, groups = compile_program(r['prefix'])
            prefix = programs.add(code)
        if (r['transform'] or '') not in transforms:
            transforms.append(r['transform'])
        assert groups <= 3 and len(r['code']) in (0, 2)
        assert re.fullmatch(r'(?:\d|\$[123])*', r['transform'] or '')
        rows.append('\t{"%s", %d, %d, 0x%05X, %d, %d, %d, %d},' % (
            r['code'], r['calling'], number[general[n]], mask(r['lengths']), idd, prefix, groups,
            transforms.index(r['transform'] or '')))
    assert all(op < 1 << 16 for op in programs.items) and len(programs.items) < 1 << 16

    starts, edges = [], []
    for old in order:
        starts.append(len(edges))
        edges += [number[t] << 10 | m for m, t in DFA.list[old][1]]
    starts.append(len(edges))
    assert len(edges) < 1 << 16 and len(order) < 1 << 16

    out = ['/*', ' * contact_phone_data.c',
           ' *\t\tThe numbering plans of the world.  Written by phone_metadata.py: do not edit.',
           ' *',
           ' * Derived from the metadata of libphonenumber %s, Copyright (C) The' % version,
           ' * Libphonenumber Authors, licensed under the Apache License, Version 2.0:',
           ' * https://www.apache.org/licenses/LICENSE-2.0.  Changed: its patterns are',
           ' * compiled into the tables below, which contact_phone.h describes.',
           ' */', '#ifndef FRONTEND', '#include "postgres.h"', '#else', '#include "postgres_fe.h"',
           '#endif', '', '#include "contact/contact_phone.h"', '',
           'const char *const contact_phone_metadata = "%s";' % version, '',
           'const ContactPhoneRegion contact_phone_regions[] = {'] + rows + ['};',
           'const int\tcontact_phone_nregions = %d;' % sum(1 for n in names if regions[n]['code']), '',
           '/* territories that have a code but no plan of their own */',
           'const char *const contact_phone_planless = "%s";' % ' '.join(NO_PLAN), '',
           'const ContactPhoneCode contact_phone_codes[] = {']
    for c in sorted(codes):
        out.append('\t{%d, %d, %d},' % (c, index[codes[c][0]], number[valid[c]]))
    number_of = {c: n + 1 for n, c in enumerate(sorted(codes))}
    assert len(codes) < 256
    out += ['};', '']
    out += table('contact_phone_code_numbers', 'uint8', [number_of.get(c, 0) for c in range(1000)]) + ['']
    out += [
            'const char *const contact_phone_transforms[] = {' +
            ', '.join('"%s"' % t for t in transforms) + '};', '']
    out += table('contact_phone_programs', 'uint16', programs.items) + ['']
    out += ['const int\tcontact_phone_naccepting = %d;' % accepting, '']
    out += table('contact_phone_states', 'uint16', starts) + ['']
    out += table('contact_phone_edges', 'uint32', edges)
    print('\n'.join(out))
    print('%d regions, %d codes, %d states, %d edges, %d instructions' %
          (len(rows), len(codes), len(order), len(edges), len(programs.items)), file=sys.stderr)


if __name__ == '__main__':
    main()
