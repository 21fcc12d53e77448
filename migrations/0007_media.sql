-- What tools show besides text.

ALTER TABLE chat.tool_calls ADD COLUMN media json;
COMMENT ON COLUMN chat.tool_calls.media IS 'What the result shows besides text, images and PDF documents, in the order of their marks in it: a list of {"mime_type", "data" (base64), "name"}; none if nothing';
