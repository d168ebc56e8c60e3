package millrace.peers.kafkastreams;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import millrace.peers.job.History;
import millrace.peers.job.Payment;
import org.apache.kafka.common.serialization.BytesSerializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * The customers' histories, read from the store when first needed.
 *
 * <p>The store has one small record a payment, under its customer and slot. So an event writes 16 bytes to the store and its changelog, and
 * not all of its customer's month. The histories made of it are a cache of the customers seen last; a task that is opened again starts
 * without.
 */
final class Customers {
    private static final int MOST_CUSTOMERS = 200_000;
    private static final BytesSerializer SERIALIZER = new BytesSerializer();

    private record Customer(byte[] prefix, History history) {}

    private final KeyValueStore<Bytes, byte[]> payments;
    private final Map<String, Customer> customers =
            new LinkedHashMap<>(1_024, 0.75f, true) {
                @Override
                protected boolean removeEldestEntry(Map.Entry<String, Customer> eldest) {
                    return size() > MOST_CUSTOMERS;
                }
            };

    Customers(KeyValueStore<Bytes, byte[]> payments) {
        this.payments = payments;
    }

    /** Let one payment pass: its features go into the row, and it goes into the store unless it came too late. */
    void pass(Payment payment, double[] features) {
        Customer customer = customers.get(payment.customerId);
        if (customer == null) {
            customer = read(payment.customerId);
            customers.put(payment.customerId, customer);
        }
        int slot = customer.history.pass(payment.eventMs, payment.amountCents, features);
        if (slot != History.TOO_LATE) {
            byte[] prefix = customer.prefix;
            byte[] key = ByteBuffer.allocate(prefix.length + Integer.BYTES).put(prefix).putInt(slot).array();
            byte[] value = ByteBuffer.allocate(2 * Long.BYTES).putLong(payment.eventMs).putLong(payment.amountCents).array();
            payments.put(Bytes.wrap(key), value);
        }
    }

    private Customer read(String customerId) {
        byte[] name = customerId.getBytes(StandardCharsets.UTF_8);
        // With its length before it no name is the beginning of another.
        byte[] prefix = ByteBuffer.allocate(Integer.BYTES + name.length).putInt(name.length).put(name).array();
        History history = new History();
        try (KeyValueIterator<Bytes, byte[]> kept = payments.prefixScan(Bytes.wrap(prefix), SERIALIZER)) {
            while (kept.hasNext()) {
                KeyValue<Bytes, byte[]> each = kept.next();
                ByteBuffer value = ByteBuffer.wrap(each.value);
                int slot = ByteBuffer.wrap(each.key.get()).getInt(prefix.length);
                history.recall(value.getLong(), value.getLong(), slot);
            }
        }
        return new Customer(prefix, history);
    }
}
