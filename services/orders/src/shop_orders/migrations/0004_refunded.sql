-- An order whose run a person ended behind the point of no return by giving the money back.
ALTER TABLE orders
    DROP CONSTRAINT orders_state_check,
    ADD CONSTRAINT orders_state_check CHECK (state IN ('pending', 'confirmed', 'rejected', 'refunded'));
