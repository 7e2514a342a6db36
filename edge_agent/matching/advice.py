"""What to tell the person in front of the camera or the sensor, in English and Chinese."""

from __future__ import annotations

from typing import NamedTuple

from edge_agent.matching.images import ImageFault
from edge_agent.matching.outcomes import NoMatchReason, SampleFault


class Advice(NamedTuple):
    en: str
    zh: str


SAMPLE = {
    SampleFault.NO_FACE: Advice("No face found: stand in front of the camera", "未检测到人脸，请站到摄像头前"),
    SampleFault.MORE_THAN_ONE_FACE: Advice("More than one face: one person at a time", "检测到多张人脸，请一次一人"),
    SampleFault.TOO_SMALL: Advice("Too small: come closer", "人脸太小，请靠近一些"),
    SampleFault.TOO_DARK: Advice("Too dark: turn on a light", "光线太暗，请开灯或移到亮处"),
    SampleFault.TOO_BRIGHT: Advice("Too bright: move out of the direct light", "光线太强，请避开直射光"),
    SampleFault.BLURRED: Advice("Blurred: hold still, clean the lens", "图像模糊，请保持不动并擦净镜头"),
    SampleFault.LOOK_AT_CAMERA: Advice("Look straight at the camera", "请正视摄像头"),
    SampleFault.COVERED: Advice("Face covered: take off mask or sunglasses", "面部被遮挡，请摘下口罩或墨镜"),
    SampleFault.TOO_FEW_MINUTIAE: Advice(
        "Too little of the print: place the finger flat", "指纹特征太少，请将手指平放"
    ),
    SampleFault.FINGER_TOO_DRY: Advice("Finger too dry: breathe on it", "手指太干，请哈气后再试"),
    SampleFault.FINGER_TOO_WET: Advice("Finger too wet: wipe it", "手指太湿，请擦干后再试"),
    SampleFault.SMALL_AREA: Advice("Place the middle of the fingertip on the sensor", "请将指腹中心放在传感器上"),
    SampleFault.SAMPLES_DISAGREE: Advice("The samples do not show one person", "多次采集的样本不一致"),
    SampleFault.CHALLENGE_FAILED: Advice("The movement was not seen: try again", "未完成指定动作，请重试"),
    SampleFault.BAD_IMAGE: Advice("The image cannot be used", "图像无法使用"),
}
IMAGE = {
    ImageFault.EMPTY: Advice("The file is empty", "文件为空"),
    ImageFault.TOO_MANY_BYTES: Advice("The file is too large", "文件过大"),
    ImageFault.NOT_AN_IMAGE: Advice("Not a JPEG, PNG, WebP or BMP image", "不是 JPEG、PNG、WebP 或 BMP 图像"),
    ImageFault.TOO_MANY_PIXELS: Advice("The image has too many pixels", "图像像素过多"),
    ImageFault.TOO_FEW_PIXELS: Advice("The image is too small", "图像尺寸太小"),
    ImageFault.ANIMATED: Advice("An animation is no photograph", "不接受动画图像"),
    ImageFault.COLOUR_MODE: Advice("Save it as 8-bit RGB first", "请先转换为 8 位 RGB 图像"),
    ImageFault.BROKEN: Advice("The image file is damaged", "图像文件已损坏"),
}
NO_MATCH = {
    NoMatchReason.BELOW_THRESHOLD: Advice("Nobody enrolled looks enough alike", "没有足够相似的已登记人员"),
    NoMatchReason.AMBIGUOUS: Advice("Two people look too much alike to decide", "两名人员过于相似，无法判定"),
    NoMatchReason.EMPTY_GALLERY: Advice("Nobody is enrolled yet", "尚无已登记人员"),
    NoMatchReason.SEALED: Advice("The template store is locked", "模板库已锁定"),
    NoMatchReason.NOT_ALLOWED: Advice("This modality may not be used now", "目前不得使用此识别方式"),
    NoMatchReason.SAMPLE: Advice("The sample cannot be used", "样本无法使用"),
}


def advice(code: SampleFault | ImageFault | NoMatchReason) -> Advice:
    if isinstance(code, SampleFault):
        return SAMPLE[code]
    return IMAGE[code] if isinstance(code, ImageFault) else NO_MATCH[code]
