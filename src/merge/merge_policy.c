/*
 * merge_policy.c
 *		Rules: which value wins where sources disagree.
 *
 * Rules are kept by unit.  The members of a group (name, job) share a rule,
 * since a group wins or loses whole.
 */
#include "postgres.h"

#include "utils/jsonb.h"

#include "merge/merge.h"

const char *const merge_unit_names[MU_COUNT] = {
	"name", "job", "nickname", "birthday", "note", "photo",
	"emails", "phones", "addresses", "urls", "tags", "metadata"
};

const char *const merge_rule_names[] = {
	"last_write_wins", "source_priority", "manual_review", "union"
};

const char *const merge_verdict_names[] = {
	"won", "lost", "united", "in_review", "excluded", "withdrawn", "incomplete",
	"overruled", "dead"
};

static const MergeUnit unit_of[CF_COUNT] = {
	[CF_FIRST_NAME] = MU_NAME,[CF_MIDDLE_NAME] = MU_NAME,[CF_LAST_NAME] = MU_NAME,
	[CF_PREFIX] = MU_NAME,[CF_SUFFIX] = MU_NAME,[CF_NICKNAME] = MU_NICKNAME,
	[CF_COMPANY] = MU_JOB,[CF_DEPARTMENT] = MU_JOB,[CF_TITLE] = MU_JOB,
	[CF_BIRTHDAY] = MU_BIRTHDAY,[CF_NOTE] = MU_NOTE,[CF_PHOTO] = MU_PHOTO,
	[CF_EMAILS] = MU_EMAILS,[CF_PHONES] = MU_PHONES,[CF_ADDRESSES] = MU_ADDRESSES,
	[CF_URLS] = MU_URLS,[CF_TAGS] = MU_TAGS,[CF_METADATA] = MU_METADATA
};

MergeUnit
merge_unit_of(ContactField field)
{
	return unit_of[field];
}

static bool
is_list_unit(MergeUnit u)
{
	return u >= MU_EMAILS;
}

void
merge_policy_defaults(MergePolicy *p)
{
	memset(p, 0, sizeof(*p));
	for (int u = 0; u < MU_COUNT; u++)
		p->rules[u].kind = is_list_unit(u) ? MR_UNION : MR_LAST_WRITE_WINS;
}

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

static bool
rule_fail(ContactError *error, StrView target, const char *message)
{
	error->message = message;
	snprintf(error->path, sizeof(error->path), "$.%.*s", Min(target.len, 60), target.ptr);
	return false;
}

/* The rule object of one target. */
static bool
read_rule(JsonbValue *v, MergeRule *rule, StrView target, ContactError *error)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;
	bool		has_rule = false;

	memset(rule, 0, sizeof(*rule));
	if (v->type != jbvBinary || !JsonContainerIsObject(v->val.binary.data))
		return rule_fail(error, target, "expected an object");
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		StrView		key;

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &member, true);
		key = value_text(&name);
		if (view_is(key, "rule"))
		{
			if (member.type == jbvString)
			{
				for (int k = 0; k < lengthof(merge_rule_names); k++)
				{
					if (view_is(value_text(&member), merge_rule_names[k]))
					{
						rule->kind = k;
						has_rule = true;
					}
				}
			}
			if (!has_rule)
				return rule_fail(error, target, "unknown rule");
		}
		else if (view_is(key, "only"))
		{
			if (member.type != jbvBool)
				return rule_fail(error, target, "\"only\" must be true or false");
			rule->only = member.val.boolean;
		}
		else if (view_is(key, "sources"))
		{
			JsonbIterator *sit;
			JsonbValue	s;

			if (member.type != jbvBinary || !JsonContainerIsArray(member.val.binary.data))
				return rule_fail(error, target, "\"sources\" must be an array of names");
			rule->sources = palloc(sizeof(StrView) * Max(JsonContainerSize(member.val.binary.data), 1));
			sit = JsonbIteratorInit(member.val.binary.data);
			while ((token = JsonbIteratorNext(&sit, &s, true)) != WJB_DONE)
			{
				if (token != WJB_ELEM)
					continue;
				if (s.type != jbvString)
					return rule_fail(error, target, "\"sources\" must be an array of names");
				rule->sources[rule->nsources++] = value_text(&s);
			}
		}
		else
			return rule_fail(error, target, "unknown option");
	}
	if (!has_rule)
		return rule_fail(error, target, "a rule is missing");
	if (rule->kind == MR_SOURCE_PRIORITY && rule->nsources == 0)
		return rule_fail(error, target, "source_priority needs a list of sources");
	if (rule->only && rule->nsources == 0)
		return rule_fail(error, target, "\"only\" needs a list of sources");
	return true;
}

static bool
read_target(MergePolicy *p, StrView target, JsonbValue *v, ContactError *error)
{
	static const char metadata_prefix[] = "metadata.";
	static const char primary_suffix[] = ".primary";
	const int	nprefix = sizeof(metadata_prefix) - 1;
	const int	nsuffix = sizeof(primary_suffix) - 1;
	MergeRule	rule;
	int			unit = -1;
	int			field = contact_field_lookup(target.ptr, target.len);

	if (!read_rule(v, &rule, target, error))
		return false;

	if (target.len > nprefix && memcmp(target.ptr, metadata_prefix, nprefix) == 0)
	{
		StrView		key = {target.ptr + nprefix, target.len - nprefix};

		if (rule.kind == MR_UNION)
			return rule_fail(error, target, "one value cannot be united");
		p->metadata[p->nmetadata].key = key;
		p->metadata[p->nmetadata++].rule = rule;
		return true;
	}
	if (target.len > nsuffix &&
		memcmp(target.ptr + target.len - nsuffix, primary_suffix, nsuffix) == 0)
	{
		StrView		list = {target.ptr, target.len - nsuffix};

		if (!view_is(list, "emails") && !view_is(list, "phones"))
			return rule_fail(error, target, "only emails and phones have a primary element");
		if (rule.kind != MR_LAST_WRITE_WINS && rule.kind != MR_SOURCE_PRIORITY)
			return rule_fail(error, target, "the primary element is chosen by last_write_wins or source_priority");
		p->primary[view_is(list, "emails") ? MU_EMAILS : MU_PHONES] = rule;
		return true;
	}

	if (field >= 0)
		unit = unit_of[field];
	for (int u = 0; u < MU_COUNT && unit < 0; u++)
		if (view_is(target, merge_unit_names[u]))
			unit = u;
	if (unit < 0)
		return rule_fail(error, target, "unknown field");
	if (rule.kind == MR_UNION && !is_list_unit(unit))
		return rule_fail(error, target, "one value cannot be united");
	if (rule.kind == MR_MANUAL_REVIEW && is_list_unit(unit))
		return rule_fail(error, target, "manual_review is for single values, groups and metadata keys");
	p->rules[unit] = rule;
	return true;
}

bool
merge_policy_from_jsonb(const Jsonb *json, MergePolicy *p, ContactError *error)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;

	merge_policy_defaults(p);
	memset(error, 0, sizeof(*error));
	if (!JB_ROOT_IS_OBJECT(json))
	{
		error->message = "expected an object";
		strcpy(error->path, "$");
		return false;
	}
	p->metadata = palloc0(sizeof(*p->metadata) * Max(JB_ROOT_COUNT(json), 1));
	it = JsonbIteratorInit((JsonbContainer *) &json->root);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &member, true);
		if (!read_target(p, value_text(&name), &member, error))
			return false;
	}
	return true;
}
