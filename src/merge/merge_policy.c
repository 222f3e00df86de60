/*
 * merge_policy.c
 *		Rules: which value wins where sources disagree.
 *
 * Rules are kept by unit: a group, which wins or loses whole, or a field outside
 * of any.  A policy may declare groups of its own; a field that it takes into one
 * leaves the group that it is in by default.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "merge/merge.h"

const char *const merge_rule_names[MR_COUNT] = {
	"last_write_wins", "source_priority", "manual_review", "most_frequent",
	"verified_first", "oldest", "most_complete", "union"
};

const char *const merge_clear_names[ML_COUNT] = {
	"withdraw", "authoritative", "ignore", "review"
};

const char *const merge_verdict_names[] = {
	"won", "lost", "united", "in_review", "excluded", "withdrawn", "incomplete",
	"overruled", "dead", "echo"
};

#define NAME_FIELDS		(CF_BIT(CF_FIRST_NAME) | CF_BIT(CF_MIDDLE_NAME) | CF_BIT(CF_LAST_NAME) | \
						 CF_BIT(CF_PREFIX) | CF_BIT(CF_SUFFIX))
#define JOB_FIELDS		(CF_BIT(CF_COMPANY) | CF_BIT(CF_DEPARTMENT) | CF_BIT(CF_TITLE))
#define SCALAR_FIELDS	(CF_BIT(CF_EMAILS) - 1)

#define GROUP_NAME_MAX	63

/* Names for several fields: groups win whole, sets are for convenience. */
static const struct
{
	const char *name;
	uint32		fields;
	ContactField lead;
}			default_groups[] = {
	{"name", NAME_FIELDS, CF_LAST_NAME},
	{"job", JOB_FIELDS, CF_COMPANY}
};

static const struct
{
	const char *name;
	uint32		fields;
}			field_sets[] = {
	{"business", JOB_FIELDS},
	{"personal", CF_BIT(CF_PHONES) | CF_BIT(CF_ADDRESSES) | CF_BIT(CF_BIRTHDAY) | CF_BIT(CF_EMAILS)}
};

/* One member of the JSON form, as read. */
typedef struct Entry
{
	StrView		target;
	bool		has_rule;
	bool		has_clear;
	MergeRule	rule;
	int			nmembers;		/* of a group that it declares, the lead first */
	ContactField members[CF_COUNT];
} Entry;

static bool
view_is(StrView s, const char *name)
{
	return s.len == strlen(name) && memcmp(s.ptr, name, s.len) == 0;
}

static StrView
value_text(const JsonbValue *v)
{
	StrView		s;

	s.ptr = v->val.string.val;
	s.len = v->val.string.len;
	return s;
}

/* Report a fault in the entry of a target, or in a member of it. */
static bool
fail(ContactError *error, StrView target, const char *member, const char *message)
{
	StringInfoData path;
	int			len;

	initStringInfo(&path);
	appendStringInfoString(&path, "$.");
	if (contact_field_lookup(target.ptr, target.len) >= 0)
		appendBinaryStringInfo(&path, target.ptr, target.len);
	else
		escape_json(&path, pnstrdup(target.ptr, target.len));
	if (member)
		appendStringInfo(&path, ".%s", member);
	len = pg_mbcliplen(path.data, path.len, sizeof(error->path) - 1);
	memcpy(error->path, path.data, len);
	error->path[len] = '\0';
	error->message = message;
	return false;
}

static inline bool
is_array(const JsonbValue *v)
{
	return v->type == jbvBinary && JsonContainerIsArray(v->val.binary.data) &&
		!JsonContainerIsScalar(v->val.binary.data);
}

/* ---- reading ---- */

static bool
read_kind(const JsonbValue *v, Entry *e, ContactError *error)
{
	for (int k = 0; v->type == jbvString && k < MR_COUNT; k++)
	{
		if (view_is(value_text(v), merge_rule_names[k]))
		{
			e->rule.kind = k;
			e->has_rule = true;
			return true;
		}
	}
	return fail(error, e->target, "rule", "unknown rule");
}

static bool
read_sources(const JsonbValue *v, Entry *e, ContactError *error)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	s;

	if (!is_array(v))
		return fail(error, e->target, "sources", "\"sources\" must be an array of names");
	e->rule.sources = palloc(sizeof(StrView) * Max(JsonContainerSize(v->val.binary.data), 1));
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &s, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (s.type != jbvString)
			return fail(error, e->target, "sources", "\"sources\" must be an array of names");
		e->rule.sources[e->rule.nsources++] = value_text(&s);
	}
	return true;
}

static bool
read_members(const JsonbValue *v, Entry *e, ContactError *error)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	s;
	uint32		seen = 0;

	if (!is_array(v) || JsonContainerSize(v->val.binary.data) == 0)
		return fail(error, e->target, "members", "\"members\" must be an array of fields");
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &s, true)) != WJB_DONE)
	{
		int			field;

		if (token != WJB_ELEM)
			continue;
		field = s.type == jbvString ? contact_field_lookup(s.val.string.val, s.val.string.len) : -1;
		if (field < 0 || CF_IS_LIST(field))
			return fail(error, e->target, "members", "the members of a group are single-valued fields");
		if (seen & CF_BIT(field))
			return fail(error, e->target, "members", "a field is listed twice");
		seen |= CF_BIT(field);
		e->members[e->nmembers++] = field;
	}
	return true;
}

static bool
clear_lookup(const JsonbValue *v, MergeClear *clear)
{
	for (int k = 0; v->type == jbvString && k < ML_COUNT; k++)
	{
		if (view_is(value_text(v), merge_clear_names[k]))
		{
			*clear = k;
			return true;
		}
	}
	return false;
}

static bool
read_clear(const JsonbValue *v, Entry *e, ContactError *error)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;
	MergeRule  *rule = &e->rule;

	e->has_clear = true;
	if (clear_lookup(v, &rule->clear))
		return true;
	if (v->type != jbvBinary || !JsonContainerIsObject(v->val.binary.data))
		return fail(error, e->target, "clear", "\"clear\" must be withdraw, authoritative, ignore or review, or an object of these by source");
	rule->clears = palloc(sizeof(*rule->clears) * Max(JsonContainerSize(v->val.binary.data), 1));
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &member, true);
		rule->clears[rule->nclears].source = value_text(&name);
		if (!clear_lookup(&member, &rule->clears[rule->nclears++].clear))
			return fail(error, e->target, "clear", "a clear may withdraw, be authoritative, ignore or review");
	}
	return true;
}

static bool
check_entry(const Entry *e, ContactError *error)
{
	if (!e->has_rule && !e->has_clear && e->nmembers == 0)
		return fail(error, e->target, NULL, "a rule is missing");
	if (e->rule.kind == MR_SOURCE_PRIORITY && e->rule.nsources == 0)
		return fail(error, e->target, "sources", "source_priority needs a list of sources");
	if (e->rule.only && e->rule.nsources == 0)
		return fail(error, e->target, "only", "\"only\" needs a list of sources");
	return true;
}

static bool
read_entry(JsonbValue *v, Entry *e, ContactError *error)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;

	if (v->type == jbvString)
		return read_kind(v, e, error) && check_entry(e, error);
	if (v->type != jbvBinary || !JsonContainerIsObject(v->val.binary.data))
		return fail(error, e->target, NULL, "expected an object");
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		bool		ok;

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &member, true);
		if (view_is(value_text(&name), "rule"))
			ok = read_kind(&member, e, error);
		else if (view_is(value_text(&name), "only"))
		{
			ok = member.type == jbvBool;
			if (!ok)
				fail(error, e->target, "only", "\"only\" must be true or false");
			else
				e->rule.only = member.val.boolean;
		}
		else if (view_is(value_text(&name), "sources"))
			ok = read_sources(&member, e, error);
		else if (view_is(value_text(&name), "clear"))
			ok = read_clear(&member, e, error);
		else if (view_is(value_text(&name), "members"))
			ok = read_members(&member, e, error);
		else
			ok = fail(error, e->target, NULL, "unknown option");
		if (!ok)
			return false;
	}
	return check_entry(e, error);
}

/* ---- groups ---- */

static int
set_lookup(StrView name)
{
	for (int i = 0; i < lengthof(field_sets); i++)
		if (view_is(name, field_sets[i].name))
			return i;
	return -1;
}

/* May a group be called so?  As no field and no set is, and without a dot. */
static bool
is_group_name(StrView name)
{
	if (name.len == 0 || name.len > GROUP_NAME_MAX || name.ptr[0] < 'a' || name.ptr[0] > 'z')
		return false;
	for (int i = 0; i < name.len; i++)
		if (!((name.ptr[i] >= 'a' && name.ptr[i] <= 'z') || (name.ptr[i] >= '0' && name.ptr[i] <= '9') || name.ptr[i] == '_'))
			return false;
	return contact_field_lookup(name.ptr, name.len) < 0 && set_lookup(name) < 0;
}

/* Which fields make a unit: by the groups that are declared, then by the default ones. */
static bool
make_units(MergePolicy *p, const Entry *entries, int nentries, ContactError *error)
{
	uint32		taken = 0;

	p->nunits = 0;
	for (int i = 0; i < nentries; i++)
	{
		const Entry *e = &entries[i];
		MergeUnit  *u = &p->units[p->nunits];

		if (e->nmembers == 0)
			continue;
		if (!is_group_name(e->target))
			return fail(error, e->target, NULL, "a group is named by lower-case letters, digits and _, and not as a field is");
		u->name = e->target;
		u->lead = e->members[0];
		u->declared = true;
		for (int k = 0; k < e->nmembers; k++)
			u->fields |= CF_BIT(e->members[k]);
		if (u->fields & taken)
			return fail(error, e->target, "members", "a field is in two groups");
		taken |= u->fields;
		p->nunits++;
	}
	for (int i = 0; i < lengthof(default_groups); i++)
	{
		MergeUnit  *u = &p->units[p->nunits];
		bool		declared = false;

		for (int k = 0; k < p->nunits; k++)
			declared |= view_is(p->units[k].name, default_groups[i].name);
		u->fields = default_groups[i].fields & ~taken;
		if (declared || u->fields == 0)
			continue;
		u->name = strview_of(default_groups[i].name);
		u->lead = u->fields & CF_BIT(default_groups[i].lead) ? default_groups[i].lead :
			pg_rightmost_one_pos32(u->fields);
		taken |= u->fields;
		p->nunits++;
	}
	for (int f = 0; f < CF_COUNT; f++)
	{
		MergeUnit  *u = &p->units[p->nunits];

		if (taken & CF_BIT(f))
			continue;
		u->name = strview_of(contact_field_names[f]);
		u->fields = CF_BIT(f);
		u->lead = f;
		p->nunits++;
	}
	for (int u = 0; u < p->nunits; u++)
	{
		p->units[u].rule.kind = CF_IS_LIST(p->units[u].lead) ? MR_UNION : MR_LAST_WRITE_WINS;
		for (int f = 0; f < CF_COUNT; f++)
			if (p->units[u].fields & CF_BIT(f))
				p->unit_of[f] = u;
	}
	return true;
}

const MergeUnit *
merge_unit_of(const MergePolicy *p, ContactField field)
{
	return &p->units[p->unit_of[field]];
}

const MergeUnit *
merge_unit_named(const MergePolicy *p, StrView name)
{
	for (int u = 0; u < p->nunits; u++)
		if (strview_same(p->units[u].name, name))
			return &p->units[u];
	return NULL;
}

uint32
merge_default_group(StrView name)
{
	for (int i = 0; i < lengthof(default_groups); i++)
		if (view_is(name, default_groups[i].name))
			return default_groups[i].fields;
	return 0;
}

void
merge_policy_defaults(MergePolicy *p)
{
	memset(p, 0, sizeof(*p));
	(void) make_units(p, NULL, 0, NULL);
}

/* ---- rules ---- */

/* The part behind a prefix; absent if it does not have it. */
static StrView
behind(StrView s, const char *prefix)
{
	int			n = strlen(prefix);

	if (s.len > n && memcmp(s.ptr, prefix, n) == 0)
		return strview(s.ptr + n, s.len - n);
	return strview(NULL, 0);
}

bool
merge_may_review(const MergeRule *rule)
{
	bool		result = rule->clear == ML_REVIEW;

	for (int i = 0; i < rule->nclears; i++)
		result |= rule->clears[i].clear == ML_REVIEW;
	return result;
}

static bool
set_metadata_rule(MergePolicy *p, const Entry *e, StrView key, ContactError *error)
{
	if (e->rule.kind == MR_UNION)
		return fail(error, e->target, "rule", "one value cannot be united");
	p->metadata[p->nmetadata].key = key;
	p->metadata[p->nmetadata++].rule = e->rule;
	return true;
}

static bool
set_primary_rule(MergePolicy *p, const Entry *e, ContactField list, ContactError *error)
{
	if (list != CF_EMAILS && list != CF_PHONES)
		return fail(error, e->target, NULL, "only emails and phones have a primary element");
	if (e->has_clear)
		return fail(error, e->target, "clear", "the primary element is none that a source can clear");
	if (e->rule.kind == MR_UNION || e->rule.kind == MR_MANUAL_REVIEW)
		return fail(error, e->target, "rule", "one element is to be chosen, by a rule that can always choose");
	p->primary[list] = e->rule;
	return true;
}

static bool
set_unit_rule(MergeUnit *u, const Entry *e, bool by_set, ContactError *error)
{
	bool		list = CF_IS_LIST(u->lead);

	if (u->rule.given && !by_set)
		return fail(error, e->target, NULL, "two rules are given for one group");
	if (e->rule.kind == MR_UNION && !list)
		return fail(error, e->target, "rule", "one value cannot be united");
	if (e->rule.kind == MR_MANUAL_REVIEW && list && u->lead != CF_METADATA)
		return fail(error, e->target, "rule", "manual_review is for single values, groups and metadata keys");
	if (list && u->lead != CF_METADATA && merge_may_review(&e->rule))
		return fail(error, e->target, "clear", "clears are reviewed of single values, groups and metadata keys");
	u->rule = e->rule;
	if (!e->has_rule && list)
		u->rule.kind = MR_UNION;
	u->rule.given = !by_set;
	return true;
}

/* What is said of single fields and groups holds against what is said of sets of fields. */
static bool
set_rule(MergePolicy *p, const Entry *e, bool sets, ContactError *error)
{
	const StrView dot_primary = {".primary", 8};
	StrView		key = behind(e->target, "metadata.");
	int			set = set_lookup(e->target);
	int			field = contact_field_lookup(e->target.ptr, e->target.len);
	const MergeUnit *unit;

	if (sets)
	{
		for (int u = 0; u < p->nunits && set >= 0; u++)
			if ((p->units[u].fields & field_sets[set].fields) && !set_unit_rule(&p->units[u], e, true, error))
				return false;
		return true;
	}
	if (set >= 0)
		return true;
	if (key.len > 0)
		return set_metadata_rule(p, e, key, error);
	if (e->target.len > dot_primary.len &&
		memcmp(e->target.ptr + e->target.len - dot_primary.len, dot_primary.ptr, dot_primary.len) == 0)
		return set_primary_rule(p, e, contact_field_lookup(e->target.ptr, e->target.len - dot_primary.len), error);
	/* a member speaks for its group */
	unit = field >= 0 ? merge_unit_of(p, field) : merge_unit_named(p, e->target);
	if (unit == NULL)
		return fail(error, e->target, NULL, merge_default_group(e->target) ? "all members of this group are in others" : "unknown field");
	return set_unit_rule(&p->units[unit - p->units], e, false, error);
}

bool
merge_policy_from_jsonb(const Jsonb *json, MergePolicy *p, ContactError *error)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;
	Entry	   *entries;
	int			n = 0;

	memset(p, 0, sizeof(*p));
	memset(error, 0, sizeof(*error));
	if (!JB_ROOT_IS_OBJECT(json))
	{
		error->message = "expected an object";
		strcpy(error->path, "$");
		return false;
	}
	entries = palloc0(sizeof(Entry) * Max(JB_ROOT_COUNT(json), 1));
	p->metadata = palloc0(sizeof(*p->metadata) * Max(JB_ROOT_COUNT(json), 1));
	it = JsonbIteratorInit((JsonbContainer *) &json->root);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &member, true);
		entries[n].target = value_text(&name);
		entries[n].rule.given = true;
		if (!read_entry(&member, &entries[n++], error))
			return false;
	}
	if (!make_units(p, entries, n, error))
		return false;
	for (int sets = 1; sets >= 0; sets--)
		for (int i = 0; i < n; i++)
			if (!set_rule(p, &entries[i], sets, error))
				return false;
	/* of a set nothing is left but its members */
	for (int i = 0; i < n; i++)
	{
		int			set = set_lookup(entries[i].target);

		for (int u = 0; u < p->nunits && set >= 0; u++)
			p->units[u].rule.given |= (p->units[u].fields & field_sets[set].fields) != 0;
	}
	return true;
}

/* ---- writing ---- */

static void
push_text(JsonbParseState **state, JsonbIteratorToken token, StrView s)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = (char *) s.ptr;
	v.val.string.len = s.len;
	pushJsonbValue(state, token, &v);
}

static void
push_rule(JsonbParseState **state, StrView target, const MergeRule *rule, const MergeUnit *group)
{
	JsonbValue	yes;

	push_text(state, WJB_KEY, target);
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_text(state, WJB_KEY, strview_of("rule"));
	push_text(state, WJB_VALUE, strview_of(merge_rule_names[rule->kind]));
	if (rule->nsources > 0)
	{
		push_text(state, WJB_KEY, strview_of("sources"));
		pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
		for (int i = 0; i < rule->nsources; i++)
			push_text(state, WJB_ELEM, rule->sources[i]);
		pushJsonbValue(state, WJB_END_ARRAY, NULL);
	}
	if (rule->only)
	{
		yes.type = jbvBool;
		yes.val.boolean = true;
		push_text(state, WJB_KEY, strview_of("only"));
		pushJsonbValue(state, WJB_VALUE, &yes);
	}
	if (rule->nclears > 0)
	{
		push_text(state, WJB_KEY, strview_of("clear"));
		pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
		for (int i = 0; i < rule->nclears; i++)
		{
			push_text(state, WJB_KEY, rule->clears[i].source);
			push_text(state, WJB_VALUE, strview_of(merge_clear_names[rule->clears[i].clear]));
		}
		pushJsonbValue(state, WJB_END_OBJECT, NULL);
	}
	else if (rule->clear != ML_WITHDRAW)
	{
		push_text(state, WJB_KEY, strview_of("clear"));
		push_text(state, WJB_VALUE, strview_of(merge_clear_names[rule->clear]));
	}
	if (group)
	{
		push_text(state, WJB_KEY, strview_of("members"));
		pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
		push_text(state, WJB_ELEM, strview_of(contact_field_names[group->lead]));
		for (int f = 0; f < CF_COUNT; f++)
			if ((group->fields & CF_BIT(f)) && f != group->lead)
				push_text(state, WJB_ELEM, strview_of(contact_field_names[f]));
		pushJsonbValue(state, WJB_END_ARRAY, NULL);
	}
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

Jsonb *
merge_policy_to_jsonb(const MergePolicy *p)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int u = 0; u < p->nunits; u++)
		if (p->units[u].rule.given || p->units[u].declared)
			push_rule(&state, p->units[u].name, &p->units[u].rule, p->units[u].declared ? &p->units[u] : NULL);
	for (int f = 0; f < CF_COUNT; f++)
		if (p->primary[f].given)
			push_rule(&state, strview_of(psprintf("%s.primary", contact_field_names[f])), &p->primary[f], NULL);
	for (int i = 0; i < p->nmetadata; i++)
		push_rule(&state, strview_of(psprintf("metadata.%.*s", p->metadata[i].key.len, p->metadata[i].key.ptr)),
				  &p->metadata[i].rule, NULL);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}
