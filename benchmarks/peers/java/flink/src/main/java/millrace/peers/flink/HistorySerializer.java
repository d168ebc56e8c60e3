package millrace.peers.flink;

import java.io.IOException;
import millrace.peers.job.History;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** A history as its times and amounts, 16 bytes a payment. */
public final class HistorySerializer extends TypeSerializerSingleton<History> {
    public static final HistorySerializer INSTANCE = new HistorySerializer();

    private static final long serialVersionUID = 1L;
    private static final int SPARE = 8;

    @Override
    public void serialize(History history, DataOutputView target) throws IOException {
        target.writeInt(history.size());
        for (int place = 0; place < history.size(); place++) {
            target.writeLong(history.timeMs(place));
            target.writeLong(history.cents(place));
        }
    }

    @Override
    public History deserialize(DataInputView source) throws IOException {
        int size = source.readInt();
        History history = new History(size + SPARE);
        for (int place = 0; place < size; place++) {
            history.recall(source.readLong(), source.readLong(), place);
        }
        return history;
    }

    @Override
    public History deserialize(History reuse, DataInputView source) throws IOException {
        return deserialize(source);
    }

    @Override
    public void copy(DataInputView source, DataOutputView target) throws IOException {
        int size = source.readInt();
        target.writeInt(size);
        target.write(source, size * 2 * Long.BYTES);
    }

    @Override
    public History copy(History from) {
        return from.copy();
    }

    @Override
    public History copy(History from, History reuse) {
        return from.copy();
    }

    @Override
    public History createInstance() {
        return new History();
    }

    @Override
    public boolean isImmutableType() {
        return false;
    }

    @Override
    public int getLength() {
        return -1;
    }

    @Override
    public TypeSerializerSnapshot<History> snapshotConfiguration() {
        return new Snapshot();
    }

    /** Names this serializer in checkpoints. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<History> {
        public Snapshot() {
            super(HistorySerializer::new);
        }
    }
}
