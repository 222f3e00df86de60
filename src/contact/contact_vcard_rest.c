/*
 * contact_vcard_rest.c
 *		What a vCard says that a contact has no field for: metadata.
 *
 * A property that stands alone, without group and parameters, is
 * metadata.<its name> as text; all others are elements of metadata.vcard, in
 * the manner of jCard (RFC 7095), in their order, so that writing loses no
 * property:
 *
 *	[name, {parameters, "group"}, "text" or "unknown", value]
 *
 * "text" is a value without escapes; "unknown" is as it stood on the line,
 * which is the only faithful form of a structure that we do not know.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "contact/contact_vcard.h"

static StrView
lower_case(StrView s)
{
	return s.len > 0 ? strview_of(asc_tolower(s.ptr, s.len)) : s;
}

static bool
is_list_property(StrView name)
{
	return contact_vcard_is(name, "EMAIL") || contact_vcard_is(name, "TEL") ||
		contact_vcard_is(name, "ADR") || contact_vcard_is(name, "URL");
}

/* A label is used up if it labels elements and nothing that is kept as it is. */
static void
drop_used_labels(VcardMap *m)
{
	for (int i = 0; i < m->nprops; i++)
	{
		const VcardProperty *label = &m->props[i];
		bool		used = false;
		bool		needed = false;

		if (!m->rest[i] || !contact_vcard_is_label(label) || contact_vcard_find_label(m, label->group) != i)
			continue;
		for (int j = 0; j < m->nprops; j++)
		{
			if (contact_vcard_is_label(&m->props[j]) || !strview_same(m->props[j].group, label->group))
				continue;
			used |= is_list_property(m->props[j].name);
			needed |= m->rest[j];
		}
		m->rest[i] = needed || !used;
	}
}

/* metadata's key for a property: X-BILLING-CONTACT is billing_contact. */
static StrView
key_of(StrView name)
{
	char	   *buf = asc_tolower(name.ptr, name.len);

	for (char *p = buf; *p; p++)
		if (*p == '-')
			*p = '_';
	return strview_of(strncmp(buf, "x_", 2) == 0 && buf[2] ? buf + 2 : buf);
}

/* Would a value written in this manner say the same as this one? */
static bool
is_plain(StrView raw, VcardEscape how)
{
	for (int i = 0; i < raw.len; i++)
	{
		char		c = raw.ptr[i];
		bool		escaped = c == '\\' && i + 1 < raw.len;

		if (escaped)
			c = raw.ptr[++i];
		if (c != ',' && c != ';')
			continue;
		/* a separator with a blank behind it is prose */
		if (how == VCARD_RAW ? escaped :
			!escaped && !(i + 1 < raw.len && raw.ptr[i + 1] == ' '))
			return false;
	}
	return true;
}

/* Is a property without a field fit to be metadata.<key>? */
static bool
is_simple(const VcardMap *m, int which, StrView *key)
{
	const VcardProperty *prop = &m->props[which];
	VcardEscape how;

	if (prop->group.len > 0 || prop->nparams > 0)
		return false;
	*key = key_of(prop->name);
	if (contact_vcard_is(*key, "vcard") || contact_vcard_is(*key, "uid") ||
		contact_vcard_is(*key, "formatted_name"))
		return false;
	if (!strview_same(contact_vcard_property_of(*key, &how), prop->name) || !is_plain(prop->value, how))
		return false;
	for (int i = 0; i < m->nprops; i++)
		if (i != which && m->rest[i] && strview_same(m->props[i].name, prop->name))
			return false;
	return true;
}

static void
push_string(JsonbParseState **state, JsonbIteratorToken token, StrView s)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = unconstify(char *, s.ptr ? s.ptr : "");
	v.val.string.len = s.len;
	(void) pushJsonbValue(state, token, &v);
}

static void
push_params(JsonbParseState **state, const VcardProperty *prop)
{
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < prop->nparams; i++)
	{
		StrView		name = prop->params[i].name;
		int			n = 0;
		bool		first = true;

		/* all values of a name at its first place */
		for (int j = 0; j < prop->nparams; j++)
		{
			if (strview_same(prop->params[j].name, name))
			{
				first &= n > 0 || j == i;
				n++;
			}
		}
		if (!first || contact_vcard_is(name, "GROUP"))
			continue;
		push_string(state, WJB_KEY, lower_case(name));
		if (n > 1)
			(void) pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
		for (int j = i; j < prop->nparams; j++)
			if (strview_same(prop->params[j].name, name))
				push_string(state, n > 1 ? WJB_ELEM : WJB_VALUE, prop->params[j].value);
		if (n > 1)
			(void) pushJsonbValue(state, WJB_END_ARRAY, NULL);
	}
	if (prop->base64)
	{
		push_string(state, WJB_KEY, strview_of("encoding"));
		push_string(state, WJB_VALUE, strview_of("b"));
	}
	if (prop->group.len > 0)
	{
		push_string(state, WJB_KEY, strview_of("group"));
		push_string(state, WJB_VALUE, prop->group);
	}
	(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static void
push_property(JsonbParseState **state, const VcardProperty *prop)
{
	StringInfoData escaped;
	StrView		text = contact_vcard_unescape(prop->value);
	bool		is_text;

	initStringInfo(&escaped);
	contact_vcard_escape(&escaped, text, VCARD_TEXT);
	is_text = strview_same(strview(escaped.data, escaped.len), prop->value);
	pfree(escaped.data);
	(void) pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	push_string(state, WJB_ELEM, lower_case(prop->name));
	push_params(state, prop);
	push_string(state, WJB_ELEM, strview_of(is_text ? "text" : "unknown"));
	push_string(state, WJB_ELEM, is_text ? text : prop->value);
	(void) pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static int
property_cost(const VcardProperty *prop)
{
	int			cost = 64 + contact_vcard_json_cost(prop->name) + contact_vcard_json_cost(prop->group) + contact_vcard_json_cost(prop->value);

	for (int i = 0; i < prop->nparams; i++)
		cost += 32 + contact_vcard_json_cost(prop->params[i].name) + contact_vcard_json_cost(prop->params[i].value);
	return cost;
}

void
contact_vcard_map_rest(VcardMap *m)
{
	JsonbParseState *state = NULL;
	ContactItem item = {0};
	bool		bag[VCARD_MAX_PROPERTIES] = {0};
	int			n = 0;

	drop_used_labels(m);
	for (int i = 0; i < m->nprops; i++)
		if (m->rest[i] && contact_text_clean(m->props[i].value).len == 0)
			m->rest[i] = false;
	for (int i = 0; i < m->nprops; i++)
	{
		StrView		key;

		if (!m->rest[i])
			continue;
		if (is_simple(m, i, &key))
			contact_vcard_add_metadata(m, key, contact_vcard_text(m->props[i].value));
		else if ((bag[i] = contact_vcard_afford(m, property_cost(&m->props[i]))))
			n++;
	}
	if (n == 0)
		return;
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < m->nprops; i++)
		if (bag[i])
			push_property(&state, &m->props[i]);
	item.field = CF_METADATA;
	item.key = strview_of("vcard");
	item.value = contact_vcard_json(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
	contact_vcard_append(m, &item);
}
