/*
 * contact_value.h
 *		What stands for a value in mappings: see contact_value.c.
 */
#ifndef CONTACTSYNC_CONTACT_VALUE_H
#define CONTACTSYNC_CONTACT_VALUE_H

#include "utils/jsonb.h"

extern bool contact_value_is_path(const JsonbValue *v);
/* Is it something that is looked for, or does it stand for itself? */
extern bool contact_value_is_found(const JsonbValue *v);
/* Look for it; false if there is nothing. */
extern bool contact_value_find(const JsonbValue *v, Jsonb *payload, JsonbValue *result);
/* Of some, the first that finds something; null only if no other does. */
extern bool contact_value_find_first(JsonbContainer *values, Jsonb *payload, JsonbValue *result);
extern Jsonb *contact_value_find_all(const JsonbValue *path, Jsonb *payload);
/* A number becomes a text; any other value stays what it is. */
extern void contact_value_to_text(JsonbValue *v);
extern void contact_value_push(JsonbParseState **state, JsonbIteratorToken seq, JsonbValue *v);
extern Jsonb *contact_value_jsonb(const JsonbValue *v);

/*
 * A document from a template, which is an object or an array.  Arrays hold what is
 * said of each: a path stands for all that it finds, an object with "$each" for one
 * object for each thing, and one in which nothing is found for none.  A member of an
 * object that finds nothing is empty, or left out where that is NULL.
 */
extern Jsonb *contact_value_fill(const Jsonb *template, Jsonb *data, const JsonbValue *empty);

#endif							/* CONTACTSYNC_CONTACT_VALUE_H */
