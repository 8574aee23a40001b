-- Purpose    Reads the view of a group.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {group}
-- Returns    the view, or nothing if the group is unknown

local group = group_of(unpack_row(ARGV[2])[1])
return group and view_of(group) or {}
