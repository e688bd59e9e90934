/*
 * lane_name.h
 *		From the name of a lane to the number that stores and workers use.
 *
 * A lane belongs to a group, and the number is taken from SHA-256, so that no
 * tenant can name or forge another's lane: colliding with one on purpose would
 * take 2^64 tries of a hash that has no short cut.
 *
 * The including file includes postgres.h (or c.h) first.
 */
#ifndef RETRY_LANE_NAME_H
#define RETRY_LANE_NAME_H

/* Kinds of lanes: names of different kinds never mean the same lane. */
#define RETRY_LANE_NAMED	'n' /* by the caller */
#define RETRY_LANE_SCENE	's' /* a scene's own; its id in decimal is hashed */
#define RETRY_LANE_SCENE_ORIGIN 't' /* a scene's own at an origin: "id origin"
									 * is hashed */
#define RETRY_LANE_ORIGIN	'o' /* the origin of the URL that is called */
#define RETRY_LANE_KEY		'k' /* a scene's own for a key: "id key" is hashed */
#define RETRY_LANE_REFERENCE 'r'	/* the same for a reference */

/*
 * The first 8 bytes, big-endian, of SHA-256 over the group's id (4 bytes,
 * big-endian), the kind (1 byte) and the name.  False only when the
 * cryptographic library fails.
 */
extern bool retry_lane_hash(int32 group_id, char kind, const char *name, size_t name_len,
							int64 *hash);

/* The same for a scene's own lane. */
extern bool retry_scene_lane_hash(int32 group_id, int32 scene_id, int64 *hash);

/*
 * The same for a scene's own lane for a part of its tasks, shown as "scene
 * part"; with the kinds that hash "id part".
 */
extern bool retry_scene_part_hash(int32 group_id, int32 scene_id, char kind,
								  const char *part, size_t part_len, int64 *hash);

#endif							/* RETRY_LANE_NAME_H */
